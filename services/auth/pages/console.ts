// GET /console and the files it loads: on the public listener the live view of tokens, on the internal one the
// operator's view, which contains no key. The pages call no other host, except Business if it has an address of its
// own.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { AppError } from '../../../shared/http/errors.ts'
import type { Handler } from '../../../shared/http/types.ts'
import type { ConsoleSettings } from './console/settings.ts'
import { fileDescription, type PageRoute, pageDescription } from './page.ts'
import { staticFile, staticModule } from './static.ts'

const own = join(import.meta.dirname, 'console')
/** Package that the modules import -> the file name under which it is served, beside the modules. */
const packages = { preact: 'preact.js', 'preact/hooks': 'hooks.js', htm: 'htm.js' }
const packageUrls = Object.fromEntries(Object.entries(packages).map(([name, file]) => [name, `./${file}`]))

const files: Record<string, Handler> = Object.fromEntries([
  ...Object.entries(packages).map(([name, file]) => [file, serveModule(fileURLToPath(import.meta.resolve(name)))]),
  ...namesOf(/\.ts$/).map(name => [name, serveModule(join(own, name))]),
  ...namesOf(/\.(css|svg)$/).map(name => [name, staticFile(join(own, name))]),
])

function serveModule(path: string): Handler {
  return staticModule(path, packageUrls)
}

function namesOf(pattern: RegExp): string[] {
  return readdirSync(own).filter(name => pattern.test(name))
}

interface ConsoleDeps {
  /** `businessUrl` is `self` if Business serves the page. */
  config: Omit<ConsoleSettings, 'now'>
  /** Epoch milliseconds. */
  now: () => number
}

export const consolePage: PageRoute<ConsoleDeps> = {
  ...pageDescription,
  path: 'GET /console',
  summary: 'The console, which shows tokens live',
  handler: ({ config: { businessUrl } }) => {
    const isElsewhere = businessUrl !== null && businessUrl !== 'self'
    return page('console.html', isElsewhere ? `'self' ${new URL(businessUrl).origin}` : "'self'")
  },
}

export const operatorConsolePage: PageRoute = {
  ...pageDescription,
  path: 'GET /console',
  summary: "The operator's view",
  handler: () => page('operator.html', "'self'"),
}

export const consoleFile: PageRoute<ConsoleDeps> = {
  ...fileDescription('A script, a style sheet, or the settings of the page', [
    'text/javascript',
    'text/css',
    'image/svg+xml',
    'application/json',
  ]),
  path: 'GET /console/:file',
  summary: 'A file that /console loads',
  handler: ({ config, now }) => {
    const { businessUrl, publicUrl, shownDemoUser, isRegistrationSimple, hasApiDocs, ttlMs } = config
    const settings = {
      shownDemoUser,
      isRegistrationSimple,
      hasApiDocs,
      ttlMs,
      businessUrl: businessUrl === 'self' ? '' : businessUrl,
      publicUrl,
    }
    return (ctx, next) => {
      const { file = '' } = ctx.params
      if (file === 'settings.json') {
        ctx.body = { ...settings, now: now() } satisfies ConsoleSettings
        return
      }
      const send = Object.hasOwn(files, file) ? files[file] : undefined
      if (send === undefined) throw new AppError('not_found', 'There is nothing at this path.')
      return send(ctx, next)
    }
  },
}

/** `connections` are the origins that the page may call. */
function page(file: string, connections: string): Handler {
  return staticFile(join(own, file), {
    'Content-Security-Policy': [
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      "img-src 'self'",
      `connect-src ${connections}`,
      "base-uri 'none'",
      "form-action 'none'",
      "frame-ancestors 'none'",
    ].join('; '),
  })
}
