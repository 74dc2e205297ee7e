// Starts the processes that a benchmark measures, and reads their processor time.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import type { ServiceMessage } from '../shared/service.ts'

export const serviceKey = 'bench-service-key-0123456789abcdefghijklmnop'

export interface Running {
  process: ChildProcess
  addresses: Record<string, string>
}

const started: ChildProcess[] = []

/** Starts a service or a server of the bench, and resolves when it has reported its addresses over IPC. */
export async function start(file: string, env: Record<string, string> = {}, args: string[] = []): Promise<Running> {
  const settings = {
    SERVICE_KEY: serviceKey,
    ADMIN_KEY: `${serviceKey}-admin`,
    ACCESS_LOG: 'errors',
    LOG_LEVEL: 'warn',
    NODE_ENV: 'test',
    ...env,
  }
  const child = spawn(process.execPath, [...args, file], {
    env: { ...process.env, ...settings },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  started.push(child)
  const [message] = (await once(child, 'message')) as [ServiceMessage]
  if (message.type !== 'ready') throw new Error(`${file} did not start`)
  return { process: child, addresses: message.addresses }
}

export const startAuth = (env: Record<string, string> = {}) =>
  start('services/auth/main.ts', {
    AUTH_PORT: '0',
    AUTH_INTERNAL_PORT: '0',
    TOKEN_TTL_SECONDS: '7200',
    TOKEN_LIMIT_PER_USER: '1000',
    ...env,
  })

export function stopAll(): void {
  for (const child of started) child.kill('SIGKILL')
}

/** CPU time that all threads of a process have used so far, in microseconds. */
export function cpuMicros({ process: { pid } }: Running): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * 10_000 // clock ticks of 10 ms
}

export async function logIn(authUrl: string): Promise<string> {
  const answer = await fetch(`${authUrl}/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ username: 'demo@example.com', password: 'postman' }),
  })
  return ((await answer.json()) as { token: string }).token
}

export function describeMachine(): string {
  const { model } = cpus()[0] ?? { model: 'unknown' }
  return `${availableParallelism()} cores (${model}), Node.js ${process.versions.node}, ${process.platform}`
}
