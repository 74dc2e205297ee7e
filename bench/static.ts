// npm run bench:static: how readers of a large static file affect the latency of /data. Rounds with and without
// readers alternate in one run; it ends with the ratio of the two p99.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readArguments, readCount } from '../commands/arguments.ts'
import { drive, type LoadResult, loadTool, median, withTokens } from './load.ts'
import { logIn, startAuth, startBusiness, stopAll } from './processes.ts'
import { createProgress } from './progress.ts'
import { about, checkJsonOption, jsonOption, writeJson } from './result.ts'

const usage = `Usage: npm run bench:static [-- options]

Measures GET /data with and without clients that read a static file of Auth without pause, and prints both p99 and
their ratio. Starts its own Auth and Business, and writes no file.

  --readers <n>      clients that read the file, each on its own connection (60)
  --file <path>      the file that they read (/docs/swagger-ui-bundle.js)
  --connections <n>  connections that request /data (64)
  --rounds <n>       calm and busy rounds (5)
  --seconds <n>      length of a round (4)
  --json FILE        write the result to a file
  --single           both services at one address: Business passes the file on
  --help             show this`

const options = readArguments(usage, {
  readers: { type: 'string', default: '60' },
  file: { type: 'string', default: '/docs/swagger-ui-bundle.js' },
  connections: { type: 'string', default: '64' },
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '4' },
  single: { type: 'boolean', default: false },
  ...jsonOption,
})
checkJsonOption(usage, options)
const { single, file } = options
const readers = readCount(usage, 'readers', options.readers)
const connections = readCount(usage, 'connections', options.connections)
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)

const progress = createProgress(1 + 2 * rounds, seconds)
progress.say('Starting the servers')
// Otherwise the log warns about readers that are stopped in the middle of an answer.
const quiet = { LOG_LEVEL: 'error' }
const auth = await startAuth({ ...quiet, TRUSTED_PROXIES: single ? '1' : '0' })
const authUrl = `${auth.addresses['auth']}`
const tokens: string[] = []
for (let i = 0; i < connections; i++) tokens.push(await logIn(authUrl))
const business = await startBusiness(auth, { ...quiet, ...(single && { AUTH_PUBLIC_URL: authUrl }) })
const businessUrl = `${business.addresses['business']}`
const load = { url: `${businessUrl}/data`, connections, seconds, requests: withTokens(tokens) }

async function driveBusy(): Promise<LoadResult & { filesPerSecond: number }> {
  const child = fork('bench/staticReaders.ts', [`${single ? businessUrl : authUrl}${file}`, `${readers}`])
  const countAnswers = async () => {
    child.send('count')
    const [{ answers }] = (await once(child, 'message')) as [{ answers: number }]
    return answers
  }
  await new Promise(resolve => setTimeout(resolve, 500))
  const [before, startedAt] = [await countAnswers(), performance.now()]
  const result = await drive(load)
  const filesPerSecond = ((await countAnswers()) - before) / ((performance.now() - startedAt) / 1000)
  child.kill('SIGKILL')
  return { ...result, filesPerSecond }
}

progress.step('warm-up')
await drive(load)
const calm: LoadResult[] = []
const busy: Awaited<ReturnType<typeof driveBusy>>[] = []
for (let round = 0; round < rounds; round++) {
  progress.step(`round ${round + 1} of ${rounds}, calm`)
  calm.push(await drive(load))
  progress.step(`round ${round + 1} of ${rounds}, with readers`)
  busy.push(await driveBusy())
}
progress.end()
stopAll()

const medians = (results: LoadResult[]) => {
  const of = (member: keyof LoadResult) => median(results.map(result => result[member]))
  return { perSecond: of('perSecond'), p50: of('p50'), p99: of('p99'), errors: of('errors') }
}
const report = {
  ...about(
    `npm run bench:static -- --readers ${readers} --file ${file} --connections ${connections} --rounds ${rounds} --seconds ${seconds}${single ? ' --single' : ''}`,
  ),
  calm: medians(calm),
  withReaders: medians(busy),
  filesPerSecond: median(busy.map(({ filesPerSecond }) => filesPerSecond)),
}
const row = (name: string, { perSecond, p50, p99, errors }: typeof report.calm) =>
  `| ${name} | ${Math.round(perSecond)} | ${p50.toFixed(1)} | ${p99.toFixed(1)} | ${errors} |`
console.log(`${report.machine}, all processes and ${loadTool} on the same cores, ${report.date}
${report.command}

| GET /data | requests/s | p50 ms | p99 ms | errors |
|---|--:|--:|--:|--:|
${row('calm', report.calm)}
${row('with readers', report.withReaders)}

files read per second: ${report.filesPerSecond.toFixed(1)}
p99 with readers / p99 calm: ${(report.withReaders.p99 / report.calm.p99).toFixed(2)}`)
writeJson(options, report)
process.exit(0)
