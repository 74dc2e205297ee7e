// Starts Auth and Business, waits until both are ready, prints where they are, and stays: starts one that dies again, and stops
// both when it is told to or when one cannot be kept running. Knows the services by their paths and settings only.
import { once } from 'node:events'
import { mkdirSync, openSync, renameSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { type AuthConfig, readAuthConfig } from '../../services/auth/config.ts'
import { listenerNameOf } from '../../services/auth/dialects/index.ts'
import { isMemoryUrl, listMigrations, openTokenStore, openUserStore } from '../../services/auth/stores/index.ts'
import { type BusinessConfig, readBusinessConfig } from '../../services/business/config.ts'
import { ConfigError, type Environment } from '../../shared/config/readSettings.ts'
import { createLog } from '../../shared/log/log.ts'
import { flushOutput, openOutput } from '../../shared/log/output.ts'
import { readArguments } from '../arguments.ts'
import { completeEnvironment } from './environment.ts'
import { layOut, storesOfHeroku } from './layout.ts'
import { warningAboutNode } from './nodeVersion.ts'
import { startWorkers, type Workers, type WorkersOptions } from './workers.ts'

const usage = `Usage: ./startServer [--check-config | --migrate]

Starts Auth and Business and stays with them until Ctrl-C or SIGTERM. A service that dies is started again at the same
address; one that dies again and again soon after its start ends both, with exit code 1. With WEB_CONCURRENCY and
AUTH_WORKERS it starts several of each; SIGHUP replaces those one by one, without losing a request. With PORT both have one address: Business
listens there and passes the public routes of Auth on, which stays on 127.0.0.1.

  --check-config   say what is wrong with the settings and the stores, list the migrations, start nothing
  --migrate        bring the stores' schemas up to date and end: Heroku's release phase, or before several start
  --help           this

Settings are environment variables; docs/configuration.md lists them. Outside production a file .env is read too, and the keys
that are missing are made and kept there. On a terminal the log goes to logs/latchkey.log, otherwise to stdout.`

const logFile = 'logs/latchkey.log'
const readyWithinMs = 5000

const flag = { type: 'boolean' } as const
const options = readArguments(usage, { 'check-config': flag, migrate: flag })

const onTerminal = process.stdout.isTTY
const storesFrom: Record<string, string> = {}
const env = storesOfHeroku(
  completeEnvironment(process.env, message => console.error(message)),
  (setting, variable) => {
    storesFrom[setting] = variable
  },
)
const { auth: authEnv, business: businessEnv, isSingle } = layOut(env)
const { authConfig, businessConfig } = checkConfig()
const isDevelopment = (env['NODE_ENV'] || 'development') === 'development'
if (options['check-config']) {
  await checkStores(authConfig)
  console.log('The configuration is usable.')
  process.exit(0)
}
if (options.migrate) {
  await migrate(authConfig)
  process.exit(0)
}
const nodeWarning = warningAboutNode(process.versions.node, process.execPath)
if (nodeWarning !== null) console.error(nodeWarning)

const output = onTerminal ? openLogFile() : 'inherit'
const ownOutput = openOutput(process.stdout)
const log = createLog({ service: 'startServer', level: 'info', stream: ownOutput })
if (Object.keys(storesFrom).length > 0) log.info('heroku_stores', storesFrom)
const services: Workers[] = [] // in the order in which they stop
let stopping: Promise<void> | null = null
let replacing: Promise<void> = Promise.resolve()

process.on('SIGTERM', () => stop('SIGTERM', 0))
process.on('SIGINT', () => stop('SIGINT', 0))
process.on('SIGHUP', () => {
  replacing = replacing.then(replaceAll) // all are to be newer than the signal
})

const common = {
  output,
  onStop: (reason: string) => void stop(reason, 0),
  onRestart: reportRestart,
  onEnd(how: string) {
    console.error(`${how}; stopping the rest.`)
    void stop(how, 1)
  },
} as const
const { addresses: auth } = await startService('Auth', authConfig.workers, {
  ...pagesFindBusiness(businessConfig),
  ...authEnv,
})
const consoleUrl = urlOfConsole()
const ownAddress = {
  ...pagesMayCall(),
  AUTH_INTERNAL_URL: auth['authInternal'],
  ...businessEnv,
  ...(isSingle && { AUTH_PUBLIC_URL: auth['auth'] }),
}
const { addresses: business } = await startService('Business', businessConfig.workers, ownAddress)
await waitUntilReady(`${business['business']}/ready`)
const shownAt = `${business['business']}`.replace('//0.0.0.0:', '//localhost:')
if (onTerminal) {
  console.log(
    banner({
      businessUrl: shownAt,
      authUrl: isSingle ? shownAt : `${auth['auth']}`,
      internalUrl: `${auth['authInternal']}`,
      dialects: authConfig.dialects.map(({ name }) => `${auth[listenerNameOf(name)]}   ${name}`),
      consoleUrl: isSingle ? `${shownAt}/console` : consoleUrl,
    }),
  )
} else log.info('ready', { ...business, ...auth })

/** Ends the process with every problem of both services, or returns their settings. */
function checkConfig() {
  const problems = new Set<string>()
  const read = <T>(readConfig: (env: Environment) => T, env: Environment): T | undefined => {
    try {
      return readConfig(env)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      for (const problem of error.problems)
        problems.add(isSingle ? problem.replace(/^BUSINESS_PORT:/, 'PORT:') : problem)
      return undefined
    }
  }
  const authConfig = read(readAuthConfig, authEnv)
  const businessConfig = read(readBusinessConfig, businessEnv)
  if (authConfig === undefined || businessConfig === undefined) refuse([...problems])
  return { authConfig, businessConfig }
}

function refuse(problems: string[]): never {
  console.error(`The configuration is not usable:\n${problems.map(problem => `  ${problem}`).join('\n')}`)
  process.exit(1)
}

/** Asks the stores for their schema, and tells of the steps that a start would take. Ends the process where one cannot be asked. */
async function checkStores({ userStoreUrl, tokenStoreUrl }: AuthConfig): Promise<void> {
  const problems: string[] = []
  for (const [setting, url] of [
    ['USER_STORE_URL', userStoreUrl],
    ['TOKEN_STORE_URL', tokenStoreUrl],
  ] as const) {
    try {
      const migrations = await listMigrations(setting, url)
      if (migrations === null) continue
      const { applied, pending } = migrations
      console.log(
        `${setting}: ${applied.length} migrations applied; ${pending.join(', ') || 'none'} to come at the next start.`,
      )
    } catch (error) {
      problems.push((error as Error).message)
    }
  }
  if (problems.length > 0) refuse(problems)
}

/** Opens those that have a schema, once: that brings it up to date. The others need not be there yet. */
async function migrate({ userStoreUrl, tokenStoreUrl }: AuthConfig): Promise<void> {
  for (const [setting, url, open] of [
    ['USER_STORE_URL', userStoreUrl, openUserStore],
    ['TOKEN_STORE_URL', tokenStoreUrl, openTokenStore],
  ] as const) {
    try {
      const migrations = await listMigrations(setting, url)
      if (migrations === null) {
        console.log(`${setting}: a store without a schema.`)
        continue
      }
      await (await open(url)).close()
      const { pending } = migrations
      console.log(
        `${setting}: ${pending.length > 0 ? `applied ${pending.join(', ')}` : 'nothing to apply'}; up to date.`,
      )
    } catch (error) {
      refuse([(error as Error).message])
    }
  }
}

/** The log of the run before is kept beside it: it may say why that one ended. */
function openLogFile(): number {
  mkdirSync('logs', { recursive: true })
  try {
    renameSync(logFile, `${logFile}.previous`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  return openSync(logFile, 'a', 0o600)
}

/** In development both are on this machine; elsewhere only the operator knows how browsers reach Business. */
function pagesFindBusiness({ port, tls }: BusinessConfig): Environment {
  return isDevelopment && port !== 0 ? { CONSOLE_BUSINESS_URL: `${tls ? 'https' : 'http'}://localhost:${port}` } : {}
}

/** Where people open it: at the one origin that Business lets call. */
function urlOfConsole(): string {
  if (isSingle) return '' // known once Business listens
  const { publicUrl } = authConfig
  return `${authConfig.port === 0 ? publicUrl.replace(/:0$/, `:${new URL(`${auth['auth']}`).port}`) : publicUrl}/console`
}

/**
 * In development pages of Auth may call Business, whichever name of this machine they were opened at, and no other pages may,
 * unless CORS_ORIGINS is set.
 */
function pagesMayCall(): Environment {
  if (!isDevelopment || isSingle) return {}
  const { protocol, port } = new URL(`${auth['auth']}`)
  const addresses = [consoleUrl, `${protocol}//localhost:${port}`, `${protocol}//127.0.0.1:${port}`]
  return { CORS_ORIGINS: [...new Set(addresses.map(address => new URL(address).origin))].join(',') }
}

async function startService(name: 'Auth' | 'Business', count: number, env: Environment): Promise<Workers> {
  const path = `services/${name.toLowerCase()}/main.ts`
  const service = await startWorkers({ name, path, count, env, ...common })
  services.unshift(service)
  return service
}

function reportRestart({ name, how, pauseMs }: Parameters<WorkersOptions['onRestart']>[0]): void {
  const lost = name === 'Auth' ? lostWithAuth() : ''
  console.error(`${how}; starting another${pauseMs > 0 ? ` in ${pauseMs / 1000} s` : ''}.${lost && ` ${lost}`}`)
  if (!onTerminal) log.warn('service_ended', { name, reason: how, restartInMs: pauseMs, ...(lost && { lost }) })
}

function lostWithAuth(): string {
  const lost = [
    isMemoryUrl(authConfig.tokenStoreUrl) ? 'all tokens' : '',
    isMemoryUrl(authConfig.userStoreUrl) ? 'users who registered' : '',
  ].filter(Boolean)
  return lost.length > 0 ? `What it kept in memory is lost: ${lost.join(', and ')}.` : ''
}

/** Of the services that have several processes: one alone has nobody to stand in for it. */
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

async function waitUntilReady(url: string): Promise<void> {
  for (const giveUpAt = performance.now() + readyWithinMs; ; await sleep(50)) {
    const answer = await ask(url).catch(() => null)
    if (answer?.status === 200) return
    if (performance.now() > giveUpAt) {
      const { detail } = answer ? (JSON.parse(answer.text) as { detail: string }) : { detail: 'no answer' }
      console.error(`Not ready after ${readyWithinMs} ms: ${detail}`)
      return stop('not ready', 1)
    }
  }
}

/** Without a look at the certificate: it is for the name that clients use, and this asks a process of its own. */
async function ask(url: string): Promise<{ status: number | undefined; text: string }> {
  const options = { headers: { connection: 'close' }, rejectUnauthorized: false }
  const request = url.startsWith('https:') ? https.get(url, options) : http.get(url, options)
  const [answer] = (await once(request, 'response')) as [http.IncomingMessage]
  return { status: answer.statusCode, text: await text(answer) }
}

/** Business first: until it has answered its last request it needs Auth. */
function stop(reason: string, exitCode: number): Promise<void> {
  stopping ??= (async () => {
    if (onTerminal) console.log('\nStopping …')
    for (const service of services) if (!(await service.stop(reason))) exitCode = 1
    if (!onTerminal) log.info('stopped', { reason })
    await flushOutput(ownOutput)
    process.exit(exitCode)
  })()
  return stopping
}

interface Shown {
  businessUrl: string
  authUrl: string
  internalUrl: string
  /** A line for each. */
  dialects: string[]
  consoleUrl: string
}

function banner({ businessUrl, authUrl, internalUrl, dialects, consoleUrl }: Shown): string {
  // Somebody's real password is not for the screen.
  const shown = env['NODE_ENV'] === 'production' ? null : authConfig.demoUser
  const { username, password } = shown ?? { username: '<username>', password: '<password>' }
  const body = JSON.stringify({ username, password }).replaceAll("'", "'\\''")
  return `
Latchkey is running. Open ${consoleUrl}

  Business   ${businessUrl}
  Auth       ${authUrl}
  internal   ${internalUrl}   for holders of a key, see .env; the operator's view is at /console there
${dialects.map((line, i) => `  ${(i === 0 ? 'dialects' : '').padEnd(10)} ${line}\n`).join('')}${shown ? `  demo user  ${username} / ${password}\n` : ''}
Log in, get data, log out:

  TOKEN=$(curl -s ${authUrl}/login -H 'content-type: application/json' -d '${body}' | cut -d'"' -f4)
  curl -s ${businessUrl}/data -H "token: $TOKEN"
  curl -si -X POST ${authUrl}/logout -H "Authorization: Bearer $TOKEN"

The log is in ${logFile}. Ctrl-C stops both.
`
}
