// GET /problems/:code: the page that the `type` of an error leads to. Every listener serves it.
import { hash } from 'node:crypto'
import { AppError, type ErrorCode, statusOf } from './errors.ts'
import { problemTypes } from './problemTypes.ts'
import type { Route } from './route.ts'

const style = `
:root { color-scheme: light dark; font: 16px / 1.5 system-ui, sans-serif; }
body { max-width: 36rem; margin: 12vh auto; padding: 0 1.5rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1rem; }
`
const policy = `default-src 'none'; style-src 'sha256-${hash('sha256', style, 'base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`

export const problemPage: Route<unknown, 'none'> = {
  path: 'GET /problems/:code',
  guard: 'none',
  summary: 'The page that the `type` of an error leads to',
  tag: 'Documents',
  answers: { 200: { description: 'What the error means, and what to do', types: ['text/html'] } },
  problems: { 404: 'There is no such error code.' },
  handler: () => ctx => {
    const { code = '' } = ctx.params
    if (!isCode(code)) throw new AppError('not_found', 'There is no such error code.')
    ctx.set('Content-Security-Policy', policy)
    ctx.type = 'text/html; charset=utf-8'
    ctx.body = pageOf(code)
  },
}

function isCode(text: string): text is ErrorCode {
  return Object.hasOwn(problemTypes, text)
}

function pageOf(code: ErrorCode): string {
  const { title, means, remedy } = problemTypes[code]
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<style>${style}</style>
<h1>${title}</h1>
<p>An answer with the status ${statusOf[code]} and <code>"error": "${code}"</code>.</p>
<h2>What it means</h2>
<p>${htmlOf(means.charAt(0).toUpperCase() + means.slice(1))}.</p>
<h2>What to do</h2>
<p>${htmlOf(remedy)}</p>
</html>
`
}

/** `text` has no character that HTML reserves. */
function htmlOf(text: string): string {
  return text.replace(/`([^`]*)`/g, '<code>$1</code>')
}
