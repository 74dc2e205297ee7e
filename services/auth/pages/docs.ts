// GET /docs and /redoc, and the files they load: readable API documentation of a listener and, next to it, of Business.
// The pages load no code, style or image from any other host.
import { join } from 'node:path'
import { AppError } from '../../../shared/http/errors.ts'
import { openApiRoute } from '../../../shared/http/openapi.ts'
import type { Handler } from '../../../shared/http/types.ts'
import { fileDescription, type PageRoute, pageDescription } from './page.ts'
import { staticFile, staticModule, staticText } from './static.ts'

const own = join(import.meta.dirname, 'docs')

const files: Record<string, Handler> = {
  // index.css removes the browser's default margin.
  ...filesOf(join(own, 'swagger'), [
    'index.css',
    'swagger-ui.css',
    'swagger-ui-bundle.js',
    'swagger-ui-standalone-preset.js',
  ]),
  ...filesOf(own, ['redoc.standalone.js', 'redoc.css']),
  'docs.ts': staticModule(join(own, 'docs.ts')),
  'redoc.ts': staticModule(join(own, 'redoc.ts')),
}

export interface DocsPages {
  swaggerUi: Handler
  redoc: Handler
  file: Handler
}

export interface DocsDeps {
  /** Null if the listener has no such pages. */
  docs: DocsPages | null
}

export const swaggerUiPage: PageRoute<DocsDeps> = {
  ...pageDescription,
  path: 'GET /docs',
  summary: 'This description in Swagger UI',
  handler: ({ docs }) => docs?.swaggerUi ?? null,
}

export const redocPage: PageRoute<DocsDeps> = {
  ...pageDescription,
  path: 'GET /redoc',
  summary: 'This description in ReDoc',
  handler: ({ docs }) => docs?.redoc ?? null,
}

export const docsFile: PageRoute<DocsDeps> = {
  ...fileDescription('A script, a style sheet, or this description', [
    'text/javascript',
    'text/css',
    'application/json',
  ]),
  path: 'GET /docs/:file',
  summary: 'A file that the documentation pages load',
  handler: ({ docs }) => docs?.file ?? null,
}

/**
 * `describe` composes the OpenAPI document of the listener, shown under `name` and served below /docs/. `businessUrl` is
 * the address of Business, whose document is shown too: null to omit it, `self` if both services have the same address.
 */
export function createDocsPages(
  name: string,
  describe: () => Record<string, unknown>,
  businessUrl: string | null,
): DocsPages {
  const business = businessUrl === 'self' ? 'openapi.json' : `${businessUrl}/openapi.json`
  const documents = [
    { name, url: 'docs/openapi.json' },
    ...(businessUrl === null ? [] : [{ name: 'Business', url: business }]),
  ]
  const origin = businessUrl === null || businessUrl === 'self' ? '' : ` ${businessUrl}`
  const policy = [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self' 'unsafe-inline'", // the scripts of both libraries set inline styles
    "img-src 'self' data:",
    "font-src 'self' data:",
    `connect-src 'self'${origin}`,
    "worker-src 'self' blob:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ')

  const assets: Record<string, Handler> = {
    ...files,
    'documents.js': staticText(`const latchkeyDocuments = ${JSON.stringify(documents)}\n`, '.js'),
    'openapi.json': openApiRoute(describe),
  }
  const page = (file: string) => staticFile(join(own, file), { 'Content-Security-Policy': policy })

  const file: Handler = (ctx, next) => {
    const { file: name = '' } = ctx.params
    const send = Object.hasOwn(assets, name) ? assets[name] : undefined
    if (send === undefined) throw new AppError('not_found', 'There is nothing at this path.')
    return send(ctx, next)
  }

  return { swaggerUi: page('docs.html'), redoc: page('redoc.html'), file }
}

function filesOf(folder: string, names: string[]): Record<string, Handler> {
  return Object.fromEntries(names.map(name => [name, staticFile(join(folder, name))]))
}
