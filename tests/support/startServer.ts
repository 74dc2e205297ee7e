// ./startServer as a user runs it: a real process, started from any folder, with its own environment.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { searchFolder, searchLog } from './canaries.ts'
import { commandCoverage } from './childEnvironment.ts'
import { adminKey, serviceKey } from './credentials.ts'
import { testMode } from './processes.ts'

const project = process.cwd()
const running = new Set<ChildProcess>()
const copies: string[] = []

export interface Run {
  process: ChildProcess
  /** Its output so far. */
  stdout(): string
  stderr(): string
  /** Resolves to the addresses when it is ready; rejects with its output if it ends before that. */
  ready: Promise<{ business: string; auth: string; authInternal: string }>
  /** Resolves to the exit code. */
  ended: Promise<number | null>
}

export interface RunOptions {
  args?: string[]
  env?: Record<string, string | undefined>
  /** The folder of the project. Use a copy if ./startServer must not write into the project itself. */
  folder?: string
  cwd?: string
}

/** The system chooses the ports, and a key is set, unless `env` says otherwise. */
export function runStartServer({ args = [], env = {}, folder = project, cwd = tmpdir() }: RunOptions = {}): Run {
  const ports = { AUTH_PORT: '0', AUTH_INTERNAL_PORT: '0', BUSINESS_PORT: '0', BUSINESS_INTERNAL_PORT: '0' }
  const own = { ...process.env, ...commandCoverage(), ...testMode(env) }
  const given = { ...own, SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey, ...ports, ...env }
  const child = spawn(join(folder, 'startServer'), args, { cwd, env: given, stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  child.once('exit', () => running.delete(child))
  let stdout = ''
  let stderr = ''
  const ended = once(child, 'close').then(([code]) => {
    // Lines that are not JSON are for the terminal, such as how to log in as the demo user.
    const log = stdout.split('\n').filter(line => line.startsWith('{'))
    searchLog([...log, stderr], 'the output of ./startServer')
    return code as number | null
  })
  const ready = new Promise<{ business: string; auth: string; authInternal: string }>((resolve, reject) => {
    child.stdout.on('data', chunk => {
      stdout += chunk
      const line = stdout.split('\n').find(line => line.includes('"event":"ready"'))
      if (line) resolve(JSON.parse(line))
    })
    child.stderr.on('data', chunk => {
      stderr += chunk
    })
    ended.then(code => reject(new Error(`ended with ${code}:\n${stdout}${stderr}`)))
  })
  ready.catch(() => {})
  return { process: child, stdout: () => stdout, stderr: () => stderr, ready, ended }
}

/** A writable copy of the project, with a space in its path. */
export function copyOfProject(): string {
  const folder = join(mkdtempSync(join(tmpdir(), 'latchkey-')), 'a copy')
  copies.push(folder)
  cpSync('startServer', join(folder, 'startServer'))
  // Not `postman`, where a start writes its keys.
  const kept = new Set(['startServer', 'postman', '.env', 'logs', '.git', 'coverage'])
  for (const entry of readdirSync(project)) {
    if (!kept.has(entry)) symlinkSync(join(project, entry), join(folder, entry))
  }
  return folder
}

/** All descendants of the process `pid`. */
export function descendantsOf(pid: number): { pid: number; command: string }[] {
  const lines = execFileSync('ps', ['-eo', 'pid=,ppid=,args='], { encoding: 'utf8' }).trim().split('\n')
  const all = lines.map(line => /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) as RegExpExecArray)
  const below = (parent: number): { pid: number; command: string }[] =>
    all.flatMap(([, child, of, command = '']) =>
      Number(of) === parent ? [{ pid: Number(child), command }, ...below(Number(child))] : [],
    )
  return below(pid)
}

/** Kills what a failed test left running and removes the copies. For a suite's `after(cleanUp)`. */
export async function cleanUp(): Promise<void> {
  for (const child of running) child.kill('SIGTERM')
  await Promise.all([...running].map(child => once(child, 'exit')))
  for (const folder of copies.splice(0)) {
    searchFolder(folder)
    rmSync(join(folder, '..'), { recursive: true, force: true })
  }
}
