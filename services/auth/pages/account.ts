// GET /account: the page that a link in a mail opens. It contains no secret and does nothing by itself: the token follows
// the # of the link, which browsers do not send, and is submitted only when the user presses the button.
import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Handler } from '../../../shared/http/types.ts'
import { toBrowserModule } from './browserModule.ts'
import { type PageRoute, pageDescription } from './page.ts'
import { staticText } from './static.ts'

const read = (file: string) => readFileSync(join(import.meta.dirname, 'account', file), 'utf8')
const allowed = (text: string) => `'sha256-${hash('sha256', text, 'base64')}'`

function createPage(): Handler {
  const style = read('account.css')
  const script = toBrowserModule(read('account.ts'))
  const page = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Your account</title>
<style>${style}</style>
<h1>Your account</h1>
<form hidden>
<label>New password <input type="password" autocomplete="new-password" required></label>
<button>Confirm</button>
</form>
<p role="status"></p>
<noscript>This page needs JavaScript.</noscript>
<script type="module">${script}</script>
</html>
`
  const policy = [
    "default-src 'none'",
    `script-src ${allowed(script)}`,
    `style-src ${allowed(style)}`,
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ')
  return staticText(page, '.html', { 'Content-Security-Policy': policy })
}

/** Created on the first request, because loading the TypeScript parser would delay the start of Auth by 80 ms. */
let servePage: Handler | null = null

export const accountPage: PageRoute = {
  ...pageDescription,
  path: 'GET /account',
  summary: 'The page that a link in a mail opens',
  tag: 'Account',
  handler: () => (ctx, next) => {
    servePage ??= createPage()
    return servePage(ctx, next)
  },
}
