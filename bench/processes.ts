// Starts the processes that a benchmark measures, and reads their processor time.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ServiceMessage } from '../shared/service.ts'

export const serviceKey = 'bench-service-key-0123456789abcdefghijklmnop'
export const adminKey = `${serviceKey}-admin`

const quietSettings = {
  SERVICE_KEY: serviceKey,
  ADMIN_KEY: adminKey,
  ACCESS_LOG: 'errors',
  LOG_LEVEL: 'warn',
  NODE_ENV: 'test',
}

export interface Running {
  process: ChildProcess
  pid: number
  addresses: Record<string, string>
}

const started: ChildProcess[] = []
const folders: string[] = []

/** Starts a service or a server of the bench, and resolves when it has reported its addresses over IPC. */
export async function start(
  file: string,
  env: Record<string, string> = {},
  args: string[] = [],
  stdout: 'inherit' | 'pipe' = 'inherit',
): Promise<Running> {
  const child = spawn(process.execPath, [...args, file], {
    env: { ...process.env, ...quietSettings, ...env },
    stdio: ['ignore', stdout, 'inherit', 'ipc'],
  })
  started.push(child)
  const ended = once(child, 'exit').then(([code, signal]) => {
    throw new Error(`${file} ended before it listened (${signal ?? `exit code ${code}`}).`)
  })
  const ready = once(child, 'message') as Promise<[ServiceMessage]>
  const [message] = await Promise.race([ready, ended])
  if (message.type !== 'ready') throw new Error(`${file} did not start`)
  return { process: child, pid: child.pid as number, addresses: message.addresses }
}

export const startAuth = (env: Record<string, string> = {}) =>
  start('services/auth/main.ts', {
    AUTH_PORT: '0',
    AUTH_INTERNAL_PORT: '0',
    TOKEN_TTL_SECONDS: '7200',
    TOKEN_LIMIT_PER_USER: '1000',
    ...env,
  })

const businessPorts = { BUSINESS_PORT: '0', BUSINESS_INTERNAL_PORT: '0' }

export const settingsOfBusiness = (auth: Running) => ({
  ...quietSettings,
  ...businessPorts,
  AUTH_INTERNAL_URL: `${auth.addresses['authInternal']}`,
})

export const startBusiness = (auth: Running, env: Record<string, string> = {}) =>
  start('services/business/main.ts', { ...settingsOfBusiness(auth), ...env })

/** Business with another check, which VARIANT names. Without an address of Auth in `env`, its requests cannot reach one. */
export const startBusinessWithCheck = (env: Record<string, string>, stdout: 'inherit' | 'pipe' = 'inherit') =>
  start(
    'services/business/main.ts',
    { AUTH_INTERNAL_URL: 'http://127.0.0.1:9', ...businessPorts, ...env },
    ['--import', './bench/otherGuard.ts'],
    stdout,
  )

/** Resolves to the pid of a child that `stopAll` is to stop. Rejects if it cannot be run. */
export async function childOf(child: ChildProcess): Promise<number> {
  await once(child, 'spawn')
  started.push(child)
  return child.pid as number
}

/** A new folder that `stopAll` removes. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-bench-'))
  folders.push(folder)
  return folder
}

export function stopAll(): void {
  for (const { pid, exitCode, signalCode } of started.splice(0)) {
    // Workers of nginx would outlive it.
    if (pid !== undefined && exitCode === null && signalCode === null) withChildren(pid).forEach(kill)
  }
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended meanwhile.
  }
}

/** CPU time that all threads of these processes have used so far, in microseconds. */
export function cpuMicros(pids: number[]): number {
  return pids.reduce((sum, pid) => sum + cpuTicks(pid), 0) * 10_000 // clock ticks of 10 ms
}

function cpuTicks(pid: number): number {
  const fields = statOf(pid)
  return Number(fields[11]) + Number(fields[12])
}

/** The process and all its descendants that run now. */
export function withChildren(pid: number): number[] {
  const children = readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
    .filter(other => parentOf(other) === pid)
  return [pid, ...children.flatMap(withChildren)]
}

/** Null if the process has ended meanwhile. */
function parentOf(pid: number): number | null {
  try {
    return Number(statOf(pid)[1])
  } catch {
    return null
  }
}

/** The fields after the name of the process, which may contain spaces: proc(5) numbers the first of them 3. */
function statOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? []
}

const demoUser = { username: 'demo@example.com', password: 'postman' }

export async function logIn(authUrl: string, credentials = demoUser): Promise<string> {
  const answer = await fetch(`${authUrl}/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(credentials),
  })
  return ((await answer.json()) as { token: string }).token
}

/** Creates a user with the role `admin`, and returns how to log in. */
export async function addAdmin(auth: Running): Promise<typeof demoUser> {
  const credentials = { username: 'admin@example.com', password: randomBytes(16).toString('hex') }
  const answer = await fetch(`${auth.addresses['authInternal']}/admin/users`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${adminKey}` },
    body: JSON.stringify({ ...credentials, roles: ['admin'] }),
  })
  if (answer.status !== 201) throw new Error(`The user with a role was not created: ${answer.status}`)
  return credentials
}

/** The calls for verdicts that Auth has handled, from its metrics. */
export async function countVerdictCalls(auth: Running): Promise<number> {
  const metrics = await (await fetch(`${auth.addresses['authInternal']}/metrics`)).text()
  const counts = metrics.matchAll(
    /^latchkey_http_request_duration_seconds_count\{.*route="\/validateToken".*\} (\d+)/gm,
  )
  return [...counts].reduce((sum, [, count]) => sum + Number(count), 0)
}

export function describeMachine(): string {
  const { model } = cpus()[0] ?? { model: 'unknown' }
  return `${availableParallelism()} cores (${model}), Node.js ${process.versions.node}, ${process.platform}`
}
