// Starts Auth and Business, waits until both are ready, tells where they are, and stays: stops both when told to, and
// when one of them dies. Knows the services by their paths and settings only.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, openSync, renameSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { readAuthConfig } from '../services/auth/config.ts'
import { readBusinessConfig } from '../services/business/config.ts'
import { ConfigError, type Environment } from '../shared/config.ts'
import { openLog } from '../shared/log.ts'
import type { ServiceMessage } from '../shared/service.ts'
import { completeEnvironment } from './environment.ts'

const usage = `Usage: ./startServer [--check-config]

Starts Auth and Business and stays with them until Ctrl-C or SIGTERM.

  --check-config   say what is wrong with the settings, start nothing
  --help           this

Settings are environment variables; the README lists them. Outside production a file .env is read too, and the keys
that are missing are made and kept there. On a terminal the log goes to logs/latchkey.log, otherwise to stdout.`

// The security releases of November 2026. An older Node of the same line works, and has known holes.
const safeNodeVersions: Record<number, string> = { 22: '22.23.5', 24: '24.22.3', 26: '26.13.1' }
const logFile = 'logs/latchkey.log'
const killAfterMs = 27_000 // longer than a service takes to close by itself
const readyWithinMs = 5000

const { values: options } = parseArguments()
if (options.help) {
  console.log(usage)
  process.exit(0)
}

const onTerminal = process.stdout.isTTY
const env = completeEnvironment(process.env, message => console.error(message))
const demoUser = checkConfig(env)
if (options['check-config']) {
  console.log('The configuration is usable.')
  process.exit(0)
}
warnOfOldNode()

const output = onTerminal ? openLogFile() : 'inherit'
const log = openLog({ service: 'startServer', level: 'info', stream: process.stdout })
const children = new Map<string, ChildProcess>()
let stopping: Promise<void> | null = null

process.on('SIGTERM', () => stop('SIGTERM', 0))
process.on('SIGINT', () => stop('SIGINT', 0))

const auth = await start('Auth', 'services/auth/main.ts', env)
const business = await start('Business', 'services/business/main.ts', {
  AUTH_INTERNAL_URL: auth['authInternal'],
  ...env,
})
await waitUntilReady(`${business['business']}/ready`)
if (onTerminal) console.log(banner(`${business['business']}`, `${auth['auth']}`, `${auth['authInternal']}`))
else log.info('ready', { ...business, ...auth })

function parseArguments() {
  try {
    return parseArgs({ options: { help: { type: 'boolean' }, 'check-config': { type: 'boolean' } } })
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`)
    process.exit(2)
  }
}

/** Ends the process with every problem of both services, or returns the demo user. */
function checkConfig(env: Environment) {
  const problems = new Set<string>()
  const read = <T>(readConfig: (env: Environment) => T): T | undefined => {
    try {
      return readConfig(env)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      for (const problem of error.problems) problems.add(problem)
      return undefined
    }
  }
  const authConfig = read(readAuthConfig)
  read(readBusinessConfig)
  if (problems.size > 0) {
    console.error(`The configuration is not usable:\n${[...problems].map(problem => `  ${problem}`).join('\n')}`)
    process.exit(1)
  }
  return authConfig?.demoUser
}

function warnOfOldNode(): void {
  const numbers = (version: string) => version.split('.').map(Number) as [number, number, number]
  const [major, minor, patch] = numbers(process.versions.node)
  const safe = safeNodeVersions[major]
  if (safe === undefined) return
  const [, safeMinor, safePatch] = numbers(safe)
  if (minor < safeMinor || (minor === safeMinor && patch < safePatch)) {
    console.error(`Warning: Node.js ${process.versions.node} has known security holes; ${safe} or newer does not.`)
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

/** Resolves to the addresses of the service once it listens. */
function start(name: string, path: string, env: Environment): Promise<Record<string, string>> {
  const child = spawn(process.execPath, [path], { env, stdio: ['ignore', output, 'inherit', 'ipc'] })
  children.set(name, child)
  child.once('exit', (code, signal) => {
    children.delete(name)
    if (stopping) return
    console.error(`${name} ended (${signal ?? `exit code ${code}`}); stopping the rest.`)
    stop(`${name} ended`, 1)
  })
  return new Promise(resolve => {
    child.on('message', (message: ServiceMessage) => {
      if (message.type === 'ready') resolve(message.addresses)
      else stop(message.reason, 0)
    })
  })
}

async function waitUntilReady(url: string): Promise<void> {
  for (const giveUpAt = performance.now() + readyWithinMs; ; await sleep(50)) {
    const answer = await fetch(url, { headers: { connection: 'close' } }).catch(() => null)
    if (answer?.ok) return
    if (performance.now() > giveUpAt) {
      const { detail } = answer ? ((await answer.json()) as { detail: string }) : { detail: 'no answer' }
      console.error(`Not ready after ${readyWithinMs} ms: ${detail}`)
      return stop('not ready', 1)
    }
  }
}

/** Business first: until it has answered its last request it needs Auth. */
function stop(reason: string, exitCode: number): Promise<void> {
  stopping ??= (async () => {
    if (onTerminal) console.log('\nStopping …')
    for (const name of ['Business', 'Auth']) {
      const child = children.get(name)
      if (child === undefined) continue
      child.send({ type: 'stop', reason } satisfies ServiceMessage, () => {}) // it may be gone by now
      const kill = setTimeout(() => child.kill('SIGKILL'), killAfterMs)
      const [code] = await once(child, 'exit')
      clearTimeout(kill)
      if (code !== 0) exitCode = 1 // it could not end well: what it was to keep is lost
    }
    if (!onTerminal) log.info('stopped', { reason })
    process.exit(exitCode)
  })()
  return stopping
}

function banner(businessUrl: string, authUrl: string, internalUrl: string): string {
  // Somebody's real password is not for the screen.
  const shown = env['NODE_ENV'] === 'production' ? null : demoUser
  const { username, password } = shown ?? { username: '<username>', password: '<password>' }
  const body = JSON.stringify({ username, password }).replaceAll("'", "'\\''")
  return `
Latchkey is running.

  Business   ${businessUrl}
  Auth       ${authUrl}
  internal   ${internalUrl}   for holders of a key, see .env
${shown ? `  demo user  ${username} / ${password}\n` : ''}
Log in, get data, log out:

  TOKEN=$(curl -s ${authUrl}/login -H 'content-type: application/json' -d '${body}' | cut -d'"' -f4)
  curl -s ${businessUrl}/data -H "token: $TOKEN"
  curl -si -X POST ${authUrl}/logout -H "Authorization: Bearer $TOKEN"

The log is in ${logFile}. Ctrl-C stops both.
`
}
