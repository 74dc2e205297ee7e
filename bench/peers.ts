// npm run bench:peers: what a developer would use instead of Latchkey, each as its documentation recommends, measured in turn
// in one run, and how long each accepts a revoked session. Ends with a table; --save keeps it in bench/results/.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { readArguments, readCount, refuseUsage } from '../commands/arguments.ts'
import { describeAcceptance, pollRevoked } from './acceptance.ts'
import { barChart } from './chart.ts'
import { compareResults } from './compare.ts'
import { loadTool } from './load.ts'
import { atEnd, type Peer, peers } from './peerRows.ts'
import { peersTable } from './peersTable.ts'
import { stopAll } from './processes.ts'
import { createProgress, saveResults } from './progress.ts'
import {
  about,
  asJson,
  checkJsonOption,
  compareOption,
  jsonOption,
  readCompareOption,
  saveOption,
  writeJson,
} from './result.ts'
import { measureRounds, overHttp, type Row, type Summary } from './rounds.ts'

const usage = `Usage: npm run bench:peers -- [options]

Compares Latchkey with what a developer would use instead: requests per second of a protected resource, CPU time of all
processes that take part, and how long a revoked session is still accepted. The peers are:
  ${Object.keys(peers).join('\n  ')}
Installs the packages of bench/peers. Needs redis-server, nginx, and the PostgreSQL of the tests on this machine
(TEST_POSTGRES_URL); what cannot run says so.

  --rounds N        number of rounds; the result is their median (3)
  --seconds N       for each measurement (3)
  --connections N   how many connections (64)
  --cap N           seconds after which a revoked session is no longer polled (10)
  --only TEXT       only the peers with this text in their name; may be given more than once
  --json FILE       write the result to a file: results[connections][row], and revocation[row]
  --compare FILE    compare with an earlier result of --json
  --save            replace bench/results/peers.json, peers.svg and the table in the documents`

const options = readArguments(usage, {
  rounds: { type: 'string', default: '3' },
  seconds: { type: 'string', default: '3' },
  connections: { type: 'string', default: '64' },
  cap: { type: 'string', default: '10' },
  only: { type: 'string', multiple: true, default: [''] },
  ...jsonOption,
  ...compareOption,
  ...saveOption,
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
const connections = readCount(usage, 'connections', options.connections)
const capMs = readCount(usage, 'cap', options.cap) * 1000
const sessionCount = 16
const names = Object.keys(peers).filter(name => options.only.some(text => name.includes(text)))
if (names.length === 0)
  refuseUsage(usage, `--only: no peer has ${JSON.stringify(options.only.join(' or '))} in its name.`)
if (options.save && names.length < Object.keys(peers).length)
  refuseUsage(usage, '--save: expected all peers, without --only.')
checkJsonOption(usage, options)
const earlier = readCompareOption(usage, options, [connections], names)

const opened = new Map<string, Peer>()
/** Why a peer did not run, or what became of its revoked session. */
const revocation: Record<string, string> = {}
let results: Record<string, Record<string, Summary>> = {}
const progress = createProgress(0, 0)
try {
  install()
  const rows: Row[] = []
  for (const name of names) {
    progress.say(`Starting ${name}`)
    try {
      const peer = await (peers[name] as () => Promise<Peer>)()
      const row = await openRow(name, peer)
      await row.check()
      opened.set(name, peer)
      rows.push(row)
    } catch (error) {
      fail(name, error as Error)
    }
  }
  const load = { loads: [connections], warmUpLoad: connections }
  results = await measureRounds(rows, { rounds, seconds, ...load, onFailure: fail })
  progress.say(`Revoking sessions, up to ${options.cap} s`)
  await Promise.all([...opened].map(([name, peer]) => revoke(name, peer).catch(error => fail(name, error))))
} finally {
  stopAll()
  for (const end of atEnd) await end().catch(() => {})
}

const only = options.only.map(text => (text === '' ? '' : ` --only '${text}'`)).join('')
const report = {
  ...about(
    `npm run bench:peers -- --rounds ${rounds} --seconds ${seconds} --connections ${connections} --cap ${options.cap}${only}`,
  ),
  loadTool,
  rounds,
  seconds,
  versions: (JSON.parse(readFileSync('bench/peers/package.json', 'utf8')) as { dependencies: object }).dependencies,
  results,
  // In the order of the table; the sessions were polled at the same time.
  revocation: Object.fromEntries(names.map(name => [name, revocation[name] ?? ''])),
}
console.log(
  `${report.machine}, all processes and ${loadTool} on the same cores, ${report.date}\n${report.command}\n\n${peersTable(report)}`,
)
writeJson(options, report)
if (earlier) console.log(`\n${compareResults(earlier, report)}`)
const bars = Object.entries(results[connections] ?? {}).map(([label, { perSecond }]) => ({
  label,
  value: perSecond,
  ours: label.includes('Latchkey'),
}))
const chart = barChart('A protected resource, requests per second', `${report.machine}, ${report.date}`, bars)
saveResults(options.save, { 'peers.json': asJson(report), 'peers.svg': chart })
process.exit()

/** Their packages are not among those of the project, because nothing else needs them. */
function install(): void {
  const [lock, installed] = ['bench/peers/package-lock.json', 'bench/peers/node_modules/.package-lock.json']
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return
  progress.say('Installing the packages of bench/peers')
  const args = ['ci', '--no-audit', '--no-fund', '--silent']
  const { status } = spawnSync('npm', args, { cwd: 'bench/peers', stdio: ['ignore', 2, 2] })
  if (status !== 0) throw new Error('npm ci in bench/peers failed.')
}

async function openRow(name: string, peer: Peer): Promise<Row> {
  const logInAll = async () => {
    const headers = []
    for (let i = 0; i < sessionCount; i++) headers.push({ headers: await peer.logIn() })
    return headers
  }
  let requests = await logInAll()
  let loggedInAt = performance.now()
  const row = () => overHttp(name, peer.url, requests)
  return {
    name,
    check: () => row().check(),
    drive: (load, seconds) => row().drive(load, seconds),
    // Better Auth's cookies are fresh for five minutes; a browser would replace them.
    async prepare() {
      if (performance.now() - loggedInAt < 120_000) return
      requests = await logInAll()
      loggedInAt = performance.now()
    },
    pids: peer.pids,
  }
}

function fail(name: string, { message }: Error): void {
  opened.delete(name)
  revocation[name] = `did not run: ${message}`
}

async function revoke(name: string, { url, logIn, logOut, setting }: Peer): Promise<void> {
  if (logOut === null) {
    revocation[name] = `${setting}`
    return
  }
  const headers = await logIn()
  const isAdmitted = async () => (await fetch(url, { headers })).status === 200
  if (!(await isAdmitted())) throw new Error(`${name} refuses a new session`)
  await logOut(headers)
  const acceptance = await pollRevoked({ isAdmitted, capMs, monotonicNow: () => performance.now(), sleep })
  revocation[name] = describeAcceptance(acceptance, setting)
}
