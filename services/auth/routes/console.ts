// GET /console and the files that it loads, on both listeners: tokens watched live, and the view of the operator, which holds
// no key itself. Nothing is asked of any other host, but of Business where that has an address of its own.
import { readdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, extname, join } from 'node:path'
import { AppError } from '../../../shared/errors.ts'
import type { Context, Handler } from '../../../shared/http.ts'

const own = join(import.meta.dirname, '../console')
const packageOf = (name: string) => dirname(createRequire(import.meta.url).resolve(`${name}/package.json`))

const files: Record<string, string> = {
  'preact.js': join(packageOf('preact'), 'dist/preact.mjs'),
  'htm.js': join(dirname(createRequire(import.meta.url).resolve('htm')), 'htm.module.js'),
  ...Object.fromEntries(
    readdirSync(own)
      .filter(name => /\.(js|css|svg)$/.test(name))
      .map(name => [name, join(own, name)]),
  ),
}
const types: Record<string, string> = {
  '.css': 'text/css',
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.svg': 'image/svg+xml',
}

export interface ConsoleOptions {
  /** Where the page finds Business; null where it does not, `self` where it is served from there. */
  businessUrl: string | null
  /** Auth as its users see it: the one origin that Business lets call. */
  publicUrl: string
  /** Null where it is nobody else's business. */
  shownDemoUser: { username: string; password: string } | null
  /** Whoever registers may log in at once. */
  isRegistrationSimple: boolean
  ttlMs: number
  /** Epoch milliseconds. */
  now: () => number
}

export function consoleRoutes({ businessUrl, publicUrl, now, ...shown }: ConsoleOptions) {
  const isElsewhere = businessUrl !== null && businessUrl !== 'self'
  const page =
    (file: string, connections: string): Handler =>
    async ctx => {
      ctx.set(
        'Content-Security-Policy',
        [
          "default-src 'none'",
          "script-src 'self'",
          "style-src 'self'",
          "img-src 'self'",
          `connect-src ${connections}`,
          "base-uri 'none'",
          "form-action 'none'",
          "frame-ancestors 'none'",
        ].join('; '),
      )
      await send(ctx, join(own, file))
    }

  const asset: Handler = async ctx => {
    const { file = '' } = ctx.params
    if (file === 'settings.json') {
      // With the time here: the rings drain by this clock, whatever that of the reader's machine says.
      ctx.body = { ...shown, businessUrl: businessUrl === 'self' ? '' : businessUrl, publicUrl, now: now() }
      return
    }
    const path = Object.hasOwn(files, file) ? files[file] : undefined
    if (path === undefined) throw new AppError('not_found', 'There is nothing at this path.')
    await send(ctx, path)
  }

  return {
    console: page('console.html', isElsewhere ? `'self' ${new URL(businessUrl).origin}` : "'self'"),
    operator: page('operator.html', "'self'"),
    asset,
  }
}

async function send(ctx: Context, path: string): Promise<void> {
  ctx.body = await readFile(path, 'utf8')
  ctx.type = `${types[extname(path)]}; charset=utf-8`
}
