// Starts Auth and Business, prints their addresses when both are ready, restarts a process that dies, and stops both on a
// signal or if a service cannot be kept running. Knows the services only by their paths and settings.
import { mkdirSync, openSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { listenerNameOf } from '../../services/auth/dialects/index.ts'
import { isMemoryUrl } from '../../services/auth/stores/index.ts'
import { codeExtension } from '../../shared/codeExtension.ts'
import { ConfigError, type Environment } from '../../shared/config/readSettings.ts'
import { createLog } from '../../shared/log/log.ts'
import { flushOutput, openOutput } from '../../shared/log/output.ts'
import { readArguments, refuseUsage } from '../arguments.ts'
import { describeError } from '../errors.ts'
import { bannerOf } from './banner.ts'
import { checkConfig, migrate } from './checkConfig.ts'
import { warningAboutNode } from './nodeVersion.ts'
import { writePostmanEnvironment } from './postmanEnvironment.ts'
import { waitUntilReady } from './readiness.ts'
import { readStartSettings } from './startSettings.ts'
import { keepPorts } from './takenPorts.ts'
import { startWorkers, type Workers, type WorkersOptions } from './workers.ts'

const usage = `Usage: ./startServer [--check-config [--json] | --migrate]

Starts Auth and Business and runs until Ctrl-C or SIGTERM. A service that dies is restarted at the same address; if it keeps
dying soon after its start, both are stopped, with exit code 1. WEB_CONCURRENCY and AUTH_WORKERS start several processes of
each service; SIGHUP then replaces them one by one without losing a request. With PORT both services share one address:
Business listens there and forwards the public routes of Auth, which listens on 127.0.0.1 only.

  --check-config   report problems with the settings and the stores, list the migrations, and start nothing
  --json           with --check-config: one object with valid, problems and stores
  --migrate        migrate the stores and exit: for Heroku's release phase, or before several processes start
  --help           show this

The settings are environment variables, listed in docs/configuration.md. Except in production, a .env file is read too, and
missing keys are created and saved in it; in development a default port that is taken is replaced by the next free one. On a
terminal the log goes to logs/latchkey.log, otherwise to stdout.`

const logFile = 'logs/latchkey.log'
const readyTimeoutMs = 5000

// 1. Read the settings.
const flag = { type: 'boolean' } as const
const options = readArguments(usage, { 'check-config': flag, json: flag, migrate: flag })
if (options.json && !options['check-config']) refuseUsage(usage, '--json is only for --check-config.')
if (options['check-config']) await exitAfter(checkConfig({ isJson: options.json === true }))
if (options.migrate) await exitAfter(migrate())
const settings = await readStartSettings({ takesPorts: true }).catch(exitWith)
const { env, isDevelopment, authConfig, businessConfig, ports } = settings
const { auth: authEnv, business: businessEnv, isSingle } = settings.layout
const nodeWarning = warningAboutNode(process.versions.node, process.execPath)
if (nodeWarning !== null) console.error(nodeWarning)

// 2. Open the log and react to signals from now on.
const onTerminal = process.stdout.isTTY
const output = onTerminal ? openLogFile() : 'inherit'
const ownOutput = openOutput(process.stdout)
const log = createLog({ service: 'startServer', level: 'info', stream: ownOutput })
if (Object.keys(settings.herokuStores).length > 0) log.info('heroku_stores', settings.herokuStores)

const services: Workers[] = [] // in the order in which they stop
let stopping: Promise<void> | null = null
let replacing: Promise<void> = Promise.resolve()
process.on('SIGTERM', () => stop('SIGTERM', 0))
process.on('SIGINT', () => stop('SIGINT', 0))
process.on('SIGHUP', () => {
  // Queue the replacements, because each signal must replace every process that was started before the signal.
  replacing = replacing.then(replaceAll)
})

// 3. Start Auth, then Business, which needs Auth's addresses.
if (isDevelopment) keepPorts(ports)
const { addresses: auth } = await startService('Auth', authConfig.workers, { ...consoleSettings(), ...authEnv })
const consoleUrl = isSingle ? null : publicAuthUrl('/console')
const { addresses: business } = await startService('Business', businessConfig.workers, {
  ...corsSettings(),
  AUTH_INTERNAL_URL: auth['authInternal'],
  ...(isDevelopment && consoleUrl !== null && { CONSOLE_URL: consoleUrl }),
  ...businessEnv,
  ...(isSingle && { AUTH_PUBLIC_URL: auth['auth'] }),
})

// 4. Report the addresses once both are ready.
const problem = await waitUntilReady(`${business['business']}/ready`, readyTimeoutMs)
if (problem !== null) {
  console.error(`Not ready after ${readyTimeoutMs} ms: ${problem}`)
  await stop('not ready', 1)
}
if (onTerminal) printBanner()
else log.info('ready', { ...business, ...auth })
if (isDevelopment) writeForPostman()

async function exitAfter(task: Promise<void>): Promise<never> {
  await task.catch(exitWith)
  process.exit()
}

function exitWith(error: unknown): never {
  if (!(error instanceof ConfigError)) throw error
  console.error(describeError(error))
  process.exit(1)
}

/** Keeps the log of the previous run, which may explain why it ended. */
function openLogFile(): number {
  mkdirSync('logs', { recursive: true })
  try {
    renameSync(logFile, `${logFile}.previous`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  return openSync(logFile, 'a', 0o600)
}

async function startService(name: 'Auth' | 'Business', count: number, env: Environment): Promise<Workers> {
  const service = await startWorkers({
    name,
    path: join(import.meta.dirname, `../../services/${name.toLowerCase()}/main${codeExtension}`),
    count,
    env,
    output,
    onStop: reason => void stop(reason, 0),
    onRestart: reportRestart,
    onEnd(reason) {
      console.error(`${reason}; stopping everything.`)
      void stop(reason, 1)
    },
  })
  services.unshift(service)
  return service
}

/** The address of Business for Auth's console. Outside development, only the operator knows it. */
function consoleSettings(): Environment {
  const { port, tls } = businessConfig
  return isDevelopment && port !== 0 ? { CONSOLE_BUSINESS_URL: `${tls ? 'https' : 'http'}://localhost:${port}` } : {}
}

/**
 * Allows the pages of Auth, in development only, to call Business under every name of this machine. CORS_ORIGINS, if set,
 * decides instead.
 */
function corsSettings(): Environment {
  if (!isDevelopment || isSingle) return {}
  const { protocol, port } = new URL(`${auth['auth']}`)
  const pages = [publicAuthUrl('/console'), `${protocol}//localhost:${port}`, `${protocol}//127.0.0.1:${port}`]
  return { CORS_ORIGINS: [...new Set(pages.map(page => new URL(page).origin))].join(',') }
}

/** Auth's public URL, with the actual port if the system has chosen it. */
function publicAuthUrl(path: string): string {
  const { publicUrl, port } = authConfig
  const { port: actualPort } = new URL(`${auth['auth']}`)
  return (port === 0 ? publicUrl.replace(/:0$/, `:${actualPort}`) : publicUrl) + path
}

function printBanner(): void {
  const businessUrl = `${business['business']}`.replace('//0.0.0.0:', '//localhost:')
  const banner = bannerOf({
    businessUrl,
    authUrl: isSingle ? businessUrl : `${auth['auth']}`,
    internalUrl: `${auth['authInternal']}`,
    dialects: authConfig.dialects.map(({ name }) => `${auth[listenerNameOf(name)]}   ${name}`),
    consoleUrl: consoleUrl ?? `${businessUrl}/console`,
    // Not in production, where DEMO_USER may be a real user whose password must not be printed.
    demoUser: env['NODE_ENV'] === 'production' ? null : authConfig.demoUser,
    logFile,
    hasRequestLines: isDevelopment && process.stderr.isTTY && authConfig.accessLog === 'all',
  })
  console.log(banner)
}

/** Writes nothing if the keys come from the environment: they belong in no file. */
function writeForPostman(): void {
  if (process.env['SERVICE_KEY'] || process.env['ADMIN_KEY']) return
  writePostmanEnvironment({
    businessUrl: business['business'],
    authUrl: auth['auth'],
    authInternalUrl: auth['authInternal'],
    serviceKey: env['SERVICE_KEY'],
    adminKey: env['ADMIN_KEY'],
  })
}

function reportRestart({ name, reason, pauseMs }: Parameters<WorkersOptions['onRestart']>[0]): void {
  const lost = name === 'Auth' ? describeLoss() : ''
  const delay = pauseMs > 0 ? ` in ${pauseMs / 1000} s` : ''
  console.error(`${reason}; restarting it${delay}.${lost && ` ${lost}`}`)
  if (!onTerminal) log.warn('service_ended', { name, reason, restartInMs: pauseMs, ...(lost && { lost }) })
}

function describeLoss(): string {
  const lost = [
    isMemoryUrl(authConfig.tokenStoreUrl) ? 'all tokens' : '',
    isMemoryUrl(authConfig.userStoreUrl) ? 'all registered users' : '',
  ].filter(Boolean)
  return lost.length > 0 ? `Lost, because they were in its memory: ${lost.join(' and ')}.` : ''
}

/** Replaces the processes of each service that has several. A single process stays, because no other one would serve meanwhile. */
async function replaceAll(): Promise<void> {
  log.info('workers_replacing', { reason: 'SIGHUP' })
  const failures: string[] = []
  for (const service of services) {
    const failure = await service.replaceAll('SIGHUP')
    if (failure !== null) failures.push(failure)
  }
  if (failures.length > 0) log.warn('workers_not_replaced', { reason: failures.join('; ') })
  else log.info('workers_replaced')
}

/** Stops Business first: until its last request is answered, Business needs Auth. Never resolves. */
function stop(reason: string, exitCode: number): Promise<void> {
  stopping ??= (async () => {
    if (onTerminal) console.log('\nStopping …')
    for (const service of services) if (!(await service.stop(reason))) exitCode = 1
    if (!onTerminal) log.info('stopped', { reason })
    if (isDevelopment) keepPorts({})
    await flushOutput(ownOutput)
    process.exit(exitCode)
  })()
  return stopping
}
