// GET /docs and /redoc, and the files that they load: the description of both services for people. Nothing is asked of any
// other host.
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, extname, join } from 'node:path'
import { AppError } from '../../../shared/errors.ts'
import type { Context, Handler } from '../../../shared/http.ts'

const swaggerFolder = dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'))
const own = join(import.meta.dirname, '../pages')

const folderOf: Record<string, string> = {
  'swagger-ui.css': swaggerFolder,
  'swagger-ui-bundle.js': swaggerFolder,
  'swagger-ui-standalone-preset.js': swaggerFolder,
  'docs.js': own,
  'redoc.standalone.js': own,
  'redoc.css': own,
  'redoc.js': own,
}
const types: Record<string, string> = { '.css': 'text/css', '.js': 'text/javascript', '.html': 'text/html' }

/**
 * `ownDocument`: the description of Auth as it is to be read below /docs/. `businessUrl`: where these pages find that of
 * Business; null where they do not, `self` where they are served from there.
 */
export function docsRoutes(ownDocument: Record<string, unknown>, businessUrl: string | null) {
  const business = businessUrl === 'self' ? 'openapi.json' : `${businessUrl}/openapi.json`
  const documents = [
    { name: 'Auth', url: 'docs/openapi.json' },
    ...(businessUrl === null ? [] : [{ name: 'Business', url: business }]),
  ]
  const origin = businessUrl === null || businessUrl === 'self' ? '' : ` ${businessUrl}`
  const policy = [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self' 'unsafe-inline'", // both libraries set styles from their scripts
    "img-src 'self' data:",
    "font-src 'self' data:",
    `connect-src 'self'${origin}`,
    "worker-src 'self' blob:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ')

  const page =
    (file: string): Handler =>
    async ctx => {
      ctx.set('Content-Security-Policy', policy)
      await send(ctx, join(own, file))
    }

  const asset: Handler = async ctx => {
    const { file = '' } = ctx.params
    if (file === 'documents.js') {
      ctx.type = 'text/javascript'
      ctx.body = `const latchkeyDocuments = ${JSON.stringify(documents)}\n`
      return
    }
    if (file === 'openapi.json') {
      ctx.body = ownDocument
      return
    }
    const folder = Object.hasOwn(folderOf, file) ? folderOf[file] : undefined
    if (folder === undefined) throw new AppError('not_found', 'There is nothing at this path.')
    await send(ctx, join(folder, file))
  }

  return { swaggerUi: page('docs.html'), redoc: page('redoc.html'), asset }
}

async function send(ctx: Context, path: string): Promise<void> {
  ctx.body = await readFile(path, 'utf8')
  ctx.type = `${types[extname(path)]}; charset=utf-8`
}
