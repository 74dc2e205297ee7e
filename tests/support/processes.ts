// One service as a separate process, for tests of memory, file descriptors and trusted certificates.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { searchForSecrets, searchLog } from './canaries.ts'
import { serviceKey } from './credentials.ts'
import type { LogLine } from './log.ts'

const running = new Set<ChildProcess>()

export interface ServiceProcess {
  child: ChildProcess
  /** Listener name -> address. */
  addresses: Record<string, string>
  lines: LogLine[]
}

export interface ProcessOptions {
  env?: Record<string, string>
  /** The limit of file descriptors. */
  descriptors?: number
}

/** The settings of a process in test mode, with the cheapest hashes; no settings if `env` sets NODE_ENV. */
export function testMode(env: Record<string, string | undefined> = {}): Record<string, string> {
  return 'NODE_ENV' in env ? {} : { NODE_ENV: 'test', PASSWORD_HASH_COST: '4' }
}

/** Starts `services/<name>/main.ts` and waits until it listens; rejects with its stderr if it ends before that. */
export async function startProcess(
  name: 'auth' | 'business',
  { env = {}, descriptors }: ProcessOptions = {},
): Promise<ServiceProcess> {
  const ports = { AUTH_PORT: '0', AUTH_INTERNAL_PORT: '0', BUSINESS_PORT: '0', BUSINESS_INTERNAL_PORT: '0' }
  const given = { ...process.env, ...testMode(env), SERVICE_KEY: serviceKey, ACCESS_LOG: 'off', ...ports, ...env }
  const limit = descriptors === undefined ? '' : `ulimit -n ${descriptors} && `
  const command = [process.execPath, `services/${name}/main.ts`]
  // The process is killed at the end, so it would write no coverage, and collecting it would only cost memory.
  delete (given as Record<string, string | undefined>)['NODE_V8_COVERAGE']
  const child = spawn('sh', ['-c', `${limit}exec "$0" "$@"`, ...command], {
    env: given,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  running.add(child)
  child.once('exit', () => running.delete(child))
  let stderr = ''
  child.stderr.on('data', chunk => {
    searchForSecrets(String(chunk), `what ${name} wrote to stderr`)
    stderr += chunk
  })
  const lines: LogLine[] = []
  const addresses = await new Promise<Record<string, string>>((resolve, reject) => {
    createInterface(child.stdout).on('line', line => {
      searchLog([line], `the log of ${name}`)
      const parsed = JSON.parse(line) as LogLine
      lines.push(parsed)
      if (parsed.event === 'listening') resolve(parsed as unknown as Record<string, string>)
    })
    child.once('close', code => reject(new Error(`ended with ${code}: ${stderr}`)))
  })
  return { child, addresses, lines }
}

/** Ends what `startProcess` started. For a suite's `after(endProcesses)`. */
export async function endProcesses(): Promise<void> {
  await Promise.all(
    [...running].map(child => {
      child.kill('SIGKILL')
      return once(child, 'exit')
    }),
  )
}

/** The resident memory of a process, as the kernel counts it. */
export function residentBytes({ pid }: ChildProcess): number {
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) as RegExpExecArray
  return Number(kilobytes) * 1024
}

/** The processor time of a process so far, in milliseconds. */
export function cpuMs({ pid }: ChildProcess): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') as string[]
  return (Number(fields[11]) + Number(fields[12])) * 10 // utime and stime, in ticks of 10 ms
}
