// Generates docs/reliability.md and its chart from the results of a run. Hides how the figures of several stores form one row.
import type { DriveResult, FaultResult } from './drive.ts'
import type { Footprint } from './footprint.ts'
import { type Judgement, inWords as violationInWords } from './judgement.ts'
import {
  inWords,
  isKeptOver,
  isKeptUnder,
  mostDataMs,
  mostRecoveryMs,
  type Promised,
  promisesOfSoak,
  promisesOfStorm,
} from './promises.ts'
import type { RestartResult } from './restarts.ts'
import type { SoakResult } from './soak.ts'
import type { StormResult } from './storm.ts'
import type { TriedDefect } from './tryDefects.ts'

export interface Proof {
  date: string
  machine: string
  command: string
  seed: number
  drives: { result: DriveResult; judgement: Judgement; isClock: boolean; admissions: number[] }[]
  restarts: RestartResult[]
  storm: StormResult | null
  soak: { result: SoakResult; judgement: Judgement } | null
  defects: TriedDefect[]
  /** Each with the reason. */
  notTested: string[]
}

const elsewhere: [fault: string, what: string, where: string][] = [
  [
    'F13',
    'one user, or a thousand, log in without end',
    '`TOKEN_LIMIT_PER_USER` and `TOKEN_LIMIT`: `tests/contracts/`, `npm run bench:memory`',
  ],
  [
    'F15',
    'idle connections by the thousand, slow heads and bodies, no file descriptors left',
    '`tests/shared/http/slowClients.test.ts`',
  ],
  [
    'F16, F17',
    'a starved processor, a small heap',
    'not tested on purpose; the machine of this run was shared and busy',
  ],
  ['F19', 'logs that cannot be written', '`tests/shared/log/log.test.ts`, `tests/shared/log/securityLog.test.ts`'],
  ['F20', 'a mail server that is away, hangs or is slow', '`tests/auth/users/mail.test.ts`'],
  [
    'F22',
    'a store that is away when Auth starts; a Business that starts first',
    '`tests/auth/stores/redis.test.ts`, `tests/auth/stores/sql.test.ts`, `tests/business/business.test.ts`',
  ],
  [
    'F10',
    'a PostgreSQL whose disk is full',
    'not tested; that of SQLite is F18, and whatever PostgreSQL refuses is 503: `tests/auth/stores/sql.test.ts`',
  ],
  [
    'F23',
    'two of Auth on one store: what is revoked through one is refused by the other',
    '`tests/commands/workers.test.ts`; here only `/data` is asked while they are replaced',
  ],
  [
    'F24',
    'a crash between two steps of one change',
    'by chance only: F1 kills Auth at random moments, under changes of passwords; the second half taken up at the next start: `tests/auth/users/unfinishedChanges.test.ts`',
  ],
]

const mended: [found: string, mended: string, test: string][] = [
  [
    'Auth took 300 ms for a call (F4), and two of three `/data` were 503: who waited was asked for in calls of 50 ms of arrivals each, two at a time',
    'all who wait share the next call, each with a deadline of its own',
    '`tests/business/authClient.test.ts`: “has all who wait share the next call, …”',
  ],
  [
    "the machine's clock was set back two hours (F11), and tokens that had expired were good again, the others for two hours longer",
    'the clock of Auth never goes back while it runs',
    '`tests/auth/clock.test.ts`',
  ],
  [
    'Auth was stopped (F14), and a client that had just connected was reset before it was accepted; at full load, with a connection for each request, thirty at each stop',
    'who waits is accepted first, by a queue that is kept as short as can be; at full load one in five stops still resets one',
    '`tests/shared/http/http.test.ts`: “loses nobody who has connected, …”',
  ],
  [
    'in a storm of log-ins (F12) the p99 of validations was four times that of the calm, where others used the cores too',
    'threads that hash let the one that validates go first (Linux)',
    '`tests/auth/users/passwords.test.ts`: “the threads that hash …”',
  ],
]

export function reportOf(proof: Proof): string {
  const { date, machine, command, seed, drives, restarts, storm, soak, defects, notTested } = proof
  const all = drives.map(({ judgement }) => judgement.violations.length).reduce((a, b) => a + b, 0)
  const operations = drives.reduce((sum, { result }) => sum + result.operations, soak?.result.drive.operations ?? 0)
  const skipped = [
    ...new Set(
      drives.flatMap(({ result, isClock }) =>
        isClock ? result.skipped : result.skipped.filter(reason => !reason.includes('the real one')),
      ),
    ),
  ]
  return `# Reliability

What was promised, what was done to break it, and what came of that. Written by \`npm run prove\`: every figure is of the run
that is named here.

**${date}, ${machine}. Seed ${seed}. \`${command.replaceAll('\n', '`, then `')}\`. ${number(operations)} operations, ${all + (soak?.judgement.violations.length ?? 0)} violations.**

Twenty clients log in, ask for data, renew, list and end sessions, change passwords, race each other for single-use tokens, and come
back with dead tokens, old passwords and tokens that nobody was given, while an operator ends sessions too and one fault after another is made. All
that they asked and were answered is one history, and a checker looks in it for an answer that must not be: [histories.md](histories.md) says for
which. Tokens live for 3 s and end after 20 s, some after 4 s, so that expiry is always near.

| store | seconds under faults | operations | faults | violations |
|---|--:|--:|--:|--:|
${drives.map(({ result, judgement, isClock }) => `| ${result.storeName}:${isClock ? ', the clock is set' : ''} | ${Math.round(result.seconds)} | ${number(result.operations)} | ${result.faults.length} | ${judgement.violations.length} |`).join('\n')}
${violationsOf(proof)}
## Faults

*/data*: what was answered from the beginning of the fault to the recovery, 200 and 401 (a verdict) and 503 (none). *Slowest*: of those. *Taken back
in*: how long that takes; of what was killed or stopped it is the start of the process, under load. *Recovery*: from then to the first of 20
operations in a row, of any kind, that are all answered and none with 5xx. *Lost*: requests that were accepted and got no answer, those that the
killed process had in hand included. *False admissions*: somebody was let in who must not be. *Kept*: recovery within ${number(mostRecoveryMs)} ms, no \`/data\` slower than
${number(mostDataMs)} ms, no false admission; what else is promised, the checker judges answer by answer.

| fault | stores | times | promised | /data 200 · 401 · 503 | slowest | taken back in, p50 · max | recovery p50 · max | lost | false admissions | |
|---|---|--:|---|--:|--:|--:|--:|--:|--:|---|
${faultRows(drives).join('\n')}
${[...skipped, ...notTested].map(reason => `\n**Not tested:** ${reason}.`).join('')}

### The slowest 503

Business waits a second for a verdict, and notices up to 50 ms late that it is over. A \`/data\` that took longer was slow for another reason, most of
all since Auth, Business, the store and the twenty clients shared the cores of this machine.

## Restarts

${clientSentence}

| | times | requests | lost | not 200 | slowest | |
|---|--:|--:|--:|--:|--:|---|
${restarts.map(result => `| ${result.what} | ${result.times} | ${number(result.requests)} | ${result.lost} | ${inWords(result.otherStatuses) || 0} | ${ms(result.slowestMs)} | ${kept(isKeptOver(result))} |`).join('\n')}

A request is lost that was accepted and not answered. As every HTTP client that keeps connections should (RFC 9112 section 9.5), these
close one that they have not used for 400 ms, less than half of the time for which a service that stops still answers; one that is used for the first time
after a longer pause, in the very millisecond in which the service closes it, is lost to that client.
${storm ? stormSection(storm) : ''}${soak ? soakSection(soak) : ''}${defects.length > 0 ? defectSection(defects) : ''}
## What it has found so far

Each of these was found by this driver, is mended, and has a test that fails without it.

| found | mended | test |
|---|---|---|
${mended.map(row => `| ${row.join(' | ')} |`).join('\n')}

## What is tested elsewhere, or not

| fault | | where |
|---|---|---|
${elsewhere.map(row => `| ${row.join(' | ')} |`).join('\n')}

All processes ran on one machine. Not covered: networks that lose packets rather than connections, disks that lie about what they have
written, a machine that loses its power, replicas of Redis and PostgreSQL that take over (a Redis that was told to be one is), clusters of Redis (\`tests/auth/stores/redis.test.ts\` has
their faults), and a clock that is set back while Auth is not running.

## Again

\`\`\`
${command}
npm run prove -- --store redis --faults F6,F9 --seed ${seed} --keep /tmp/histories
npm run prove -- --check /tmp/histories/redis.jsonl
npm run prove -- --defects
\`\`\`

The seed repeats what clients choose and when faults come. What they meet depends on the machine too, so a violation
keeps its history, and says where.
`
}

const clientSentence = `Twenty clients ask for \`/data\` without pause, on connections that they keep, while \`./startServer\` gets the signal.`

function violationsOf({ drives, soak }: Proof): string {
  const lines = [...drives, ...(soak ? [{ result: soak.result.drive, judgement: soak.judgement }] : [])].flatMap(
    ({ result, judgement }) => [
      ...judgement.violations.map(violation => `* ${result.storeName}: ${violationInWords(violation)}`),
      ...result.problems.map(problem => `* ${result.storeName}: ${problem}`),
    ],
  )
  return lines.length === 0 ? '' : `\n**Found:**\n\n${lines.slice(0, 50).join('\n')}\n`
}

function faultRows(drives: Proof['drives']): string[] {
  const rows = new Map<string, { fault: FaultResult; admitted: number }[]>()
  for (const { result, admissions } of drives) {
    for (const [i, fault] of result.faults.entries()) {
      const admitted = admissions[i] ?? 0
      const key = `${fault.kind.id} ${fault.kind.what}`
      rows.set(key, [...(rows.get(key) ?? []), { fault, admitted }])
    }
  }
  const order = (key: string) => Number(/\d+/.exec(key)?.[0])
  return [...rows]
    .sort(([a], [b]) => order(a) - order(b))
    .map(([key, all]) => {
      const faults = all.map(({ fault }) => fault)
      const { promise } = (faults[0] as FaultResult).kind
      const sum = (status: string) => faults.reduce((sum, { dataByStatus }) => sum + (dataByStatus[status] ?? 0), 0)
      const rest = Object.fromEntries(
        [...new Set(faults.flatMap(({ dataByStatus }) => Object.keys(dataByStatus)))]
          .filter(status => !['200', '401', '503', 'null'].includes(status))
          .map(status => [status, sum(status)]),
      )
      const data = [...['200', '401', '503'].map(sum).map(number), inWords(rest)]
        .filter(text => text !== '')
        .join(' · ')
      const admissions = all.reduce((sum, { admitted }) => sum + admitted, 0)
      const cells = [
        key,
        [...new Set(faults.map(({ storeName }) => storeName))].join(', '),
        faults.length,
        promise,
        data,
        ms(Math.max(...faults.map(({ slowestDataMs }) => slowestDataMs))),
        medianAndMost(faults.map(({ takingBackMs }) => takingBackMs)),
        medianAndMost(faults.map(({ recoveryMs }) => recoveryMs ?? Infinity)),
        faults.reduce((sum, { unanswered }) => sum + unanswered, 0),
        admissions,
        kept(faults.every(isKeptUnder) && admissions === 0),
      ]
      return `| ${cells.join(' | ')} |`
    })
}

function medianAndMost(times: number[]): string {
  const sorted = times.toSorted((a, b) => a - b)
  return `${ms(sorted[Math.floor((sorted.length - 1) / 2)] as number)} · ${ms(sorted.at(-1) as number)}`
}

function promised(promises: Promised[]): string {
  return `| promised | found | |
|---|---|---|
${promises.map(({ promise, found, isKept }) => `| ${promise} | ${found} | ${kept(isKept)} |`).join('\n')}`
}

const kept = (isKept: boolean) => (isKept ? 'kept' : '**not kept**')

function stormSection(storm: StormResult): string {
  return `
## Log-in storms (F12)

${promised(promisesOfStorm(storm))}
`
}

function soakSection({ result, judgement }: NonNullable<Proof['soak']>): string {
  const { minutes } = result
  const { storeName, operations, footprints } = result.drive
  const last = footprints.at(-1) as Footprint
  const most = Math.max(...footprints.map(({ loopDelayMs }) => loopDelayMs))
  return `
## Soak

${minutes} minutes on ${storeName}: without a fault, ${number(operations)} operations, ${judgement.violations.length} violations.

![What the processes held](reliability.svg)

Memory moves in steps, as V8 grows and shrinks its heap. A leak would be a line that only rises. Growth is from the second to the last fifth of the
time, by the medians.

${promised(promisesOfSoak(result))}

At the end Auth had ${last.authMb.toFixed(0)} MB, Business ${last.businessMb.toFixed(0)} MB, both together ${last.descriptors} file descriptors and ${number(last.tokens)} tokens. The p99 of the
delay of Auth's event loop was ${ms(last.loopDelayMs)} in the last interval and at most ${ms(most)} in any.
`
}

function defectSection(defects: TriedDefect[]): string {
  const found = defects.filter(({ violations }) => violations > 0).length
  return `
## Does the checker find defects?

Each defect was planted in the services, which then ran for some seconds. The checker found ${found} of ${defects.length} by the rule that the defect breaks.

| defect | store | rule | violations |
|---|---|---|--:|
${defects.map(({ name, storeName, rule, violations }) => `| ${name} | ${storeName} | ${rule} | ${violations || '**not found**'} |`).join('\n')}
`
}

export function chartOf({ drive: { footprints, storeName } }: SoakResult, note: string): string {
  const lines: [title: string, unit: string, figure: (footprint: Footprint) => number][] = [
    ['resident memory of Auth', 'MB', ({ authMb }) => authMb],
    ['resident memory of Business', 'MB', ({ businessMb }) => businessMb],
    ['file descriptors of both', '', ({ descriptors }) => descriptors],
    ['delay of the event loop of Auth, p99', 'ms', ({ loopDelayMs }) => loopDelayMs],
    ['tokens in the store', '', ({ tokens }) => tokens],
  ]
  const [left, width, top, step, tall] = [20, 740, 70, 110, 64]
  const endS = footprints.at(-1)?.atS ?? 1
  const panels = lines.map(([title, unit, figure], i) => {
    const values = footprints.map(figure)
    const most = Math.max(1, ...values)
    const y = top + i * step
    const points = footprints.map(
      (footprint, j) =>
        `${(left + (footprint.atS / endS) * width).toFixed(1)},${(y + 16 + tall - ((values[j] as number) / most) * tall).toFixed(1)}`,
    )
    return `  <text x="${left}" y="${y}">${title}: at most ${most.toFixed(0)} ${unit}</text>
  <line x1="${left}" y1="${y + 16 + tall}" x2="${left + width}" y2="${y + 16 + tall}" stroke="#8a94a6"/>
  <polyline fill="none" stroke="#0a7d5a" stroke-width="1.5" points="${points.join(' ')}"/>`
  })
  const height = top + lines.length * step
  return `<svg xmlns="http://www.w3.org/2000/svg" width="780" height="${height}" viewBox="0 0 780 ${height}" role="img">
  <title>What the processes held in ${(endS / 60).toFixed(0)} minutes</title>
  <style>text { font: 13px system-ui, sans-serif; fill: #5b6472 } .title { font-size: 16px; font-weight: bold }</style>
  <text class="title" x="10" y="24">${(endS / 60).toFixed(0)} minutes on ${storeName}:, from zero to the most of each</text>
  <text x="10" y="44">${note}</text>
${panels.join('\n')}
</svg>
`
}

const number = (value: number) => Math.round(value).toLocaleString('en')
const ms = (value: number) => (value === Infinity ? 'never' : `${number(value)} ms`)
