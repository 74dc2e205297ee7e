// npm run bench:profile: what Auth and Business spend their time on, down to the system calls. Attaches perf and strace to a
// process under load. Ends with tables; --save keeps them in bench/results/.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { readArguments, readCount, refuseUsage } from '../commands/arguments.ts'
import { callsWith, drive, type Load, withTokens } from './load.ts'
import {
  childOf,
  logIn,
  type Running,
  scratchFolder,
  serviceKey,
  startAuth,
  startBusiness,
  stopAll,
} from './processes.ts'
import { type ProfileOfLoad, profileTables } from './profileTable.ts'
import { createProgress, saveResults } from './progress.ts'
import { about, asJson, checkJsonOption, jsonOption, saveOption, writeJson } from './result.ts'
import { readCounts, readSamples } from './samples.ts'

const usage = `Usage: npm run bench:profile -- [options]

Profiles Auth under calls of one and of 64 tokens, and Business under /data, each in a new process: where the CPU time goes
(perf) and how many system calls a request takes (strace). Needs Linux, perf and strace, and the right to attach to processes.

  --seconds N     for each of the two measurements of a process (6)
  --json FILE     write the result to a file
  --save          replace bench/results/profile.json and the tables in the documents`

const options = readArguments(usage, {
  seconds: { type: 'string', default: '6' },
  ...jsonOption,
  ...saveOption,
})
const seconds = readCount(usage, 'seconds', options.seconds)
checkJsonOption(usage, options)
for (const [tool, flag] of [
  ['perf', '--version'],
  ['strace', '-V'],
] as const) {
  if (spawnSync(tool, [flag]).status !== 0) refuseUsage(usage, `Install ${tool} first.`)
}

const tokenCount = 255
const samplesPerSecond = 997 // a prime, so that the samples do not keep step with timers
const attachMs = 500
const warmUpSeconds = 5 // by then V8 has compiled what is used often

interface Profiled {
  title: string
  open(): Promise<{ pid: number; load: Omit<Load, 'seconds'> }>
}

const profiled: Profiled[] = [
  { title: 'Auth, 1 token a call', open: () => openAuth(1) },
  { title: 'Auth, 64 tokens a call', open: () => openAuth(64) },
  { title: 'Business, 1 connection', open: () => openBusiness(1) },
  { title: 'Business, 64 connections', open: () => openBusiness(64) },
  { title: 'Business, 1000 connections', open: () => openBusiness(1000) },
]

const progress = createProgress(2 * profiled.length, seconds)
const results: Record<string, ProfileOfLoad> = {}
try {
  for (const { title, open } of profiled) {
    const { pid, load } = await open()
    await drive({ ...load, seconds: warmUpSeconds })
    progress.step(`${title}: perf`)
    const samples = await withPerf(pid, load)
    progress.step(`${title}: strace`)
    results[title] = { ...readSamples(samples, process.cwd()), callsPerRequest: await withStrace(pid, load) }
    stopAll()
    rmSync(`/tmp/perf-${pid}.map`, { force: true })
  }
} finally {
  stopAll()
}
progress.end()
const report = { ...about(`npm run bench:profile -- --seconds ${seconds}`), results }
console.log(`${report.machine}, ${report.date}\n${report.command}\n\n${profileTables(report)}`)
writeJson(options, report)
saveResults(options.save, { 'profile.json': asJson(report) })

async function openAuth(size: number) {
  const auth = await startAuth({ PASSWORD_HASH_COST: '4', NODE_OPTIONS: '--perf-basic-prof' })
  const requests = callsWith(await logInOften(auth), size, serviceKey)
  return { pid: auth.pid, load: { url: `${auth.addresses['authInternal']}/validateToken`, connections: 8, requests } }
}

async function openBusiness(connections: number) {
  const auth = await startAuth({ PASSWORD_HASH_COST: '4' })
  const { pid, addresses } = await startBusiness(auth, { NODE_OPTIONS: '--perf-basic-prof' })
  const requests = withTokens(await logInOften(auth))
  return { pid, load: { url: `${addresses['business']}/data`, connections, requests } }
}

async function logInOften(auth: Running): Promise<string[]> {
  const tokens: string[] = []
  for (let i = 0; i < tokenCount; i++) tokens.push(await logIn(`${auth.addresses['auth']}`))
  return tokens
}

async function withPerf(pid: number, load: Omit<Load, 'seconds'>): Promise<string> {
  const file = join(scratchFolder(), 'perf.data')
  const record = ['record', '-q', '-F', `${samplesPerSecond}`, '-g', '-p', `${pid}`, '-o', file]
  await observe('perf', record, () => drive({ ...load, seconds }))
  const script = ['script', '-i', file, '-F', 'comm,ip,sym,dso']
  return execFileSync('perf', script, { encoding: 'utf8', maxBuffer: 2 ** 30, stdio: ['ignore', 'pipe', 'ignore'] })
}

async function withStrace(pid: number, load: Omit<Load, 'seconds'>): Promise<Record<string, number>> {
  const file = join(scratchFolder(), 'counts')
  const trace = ['-c', '-f', '-o', file, '-p', `${pid}`]
  const { requests } = await observe('strace', trace, () => drive({ ...load, seconds }))
  const counts = Object.entries(readCounts(readFileSync(file, 'utf8')))
  return Object.fromEntries(counts.map(([name, count]) => [name, count / requests]))
}

/** Runs `work` while a tool is attached to a process. */
async function observe<T>(tool: string, args: string[], work: () => Promise<T>): Promise<T> {
  const child: ChildProcess = spawn(tool, args, { stdio: ['ignore', 'ignore', 'ignore'] })
  await childOf(child)
  await sleep(attachMs)
  if (child.exitCode !== null) throw new Error(`${tool} ${args.join(' ')} ended with ${child.exitCode}: may it attach?`)
  const result = await work()
  const ended = once(child, 'exit')
  child.kill('SIGINT') // it writes what it has counted
  await ended
  return result
}
