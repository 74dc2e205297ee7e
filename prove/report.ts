// Generates docs/reliability.md and its chart from the results of a run. Hides the order and the wording of its sections.
import type { DriveResult } from './drive.ts'
import { faultTable, kept, ms, number } from './faultTable.ts'
import type { Footprint } from './footprint.ts'
import { guaranteeSection } from './guarantees.ts'
import { type Judgement, inWords as violationInWords } from './judgement.ts'
import { networkSection } from './network.ts'
import {
  inWords,
  isKeptOver,
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
import { twoAuthsSection } from './twoAuths.ts'

/** What is different in a drive. */
export const settings = {
  plain: '',
  clock: ', the clock is set',
  twoAuths: ', two Auths',
  hosts: ', on hosts of their own',
  split: ', a cluster on two hosts',
} as const
export type Setting = keyof typeof settings

const isOnHosts = ({ setting }: { setting: Setting }) => setting === 'hosts' || setting === 'split'

export interface Proof {
  date: string
  machine: string
  command: string
  seed: number
  drives: { result: DriveResult; judgement: Judgement; setting: Setting; admissions: number[] }[]
  restarts: RestartResult[]
  storm: StormResult | null
  soak: { result: SoakResult; judgement: Judgement } | null
  defects: TriedDefect[]
  /** What was not tested, each with the reason. */
  notTested: string[]
}

const elsewhere: [fault: string, what: string, where: string][] = [
  [
    'F13',
    'one user or a thousand users log in endlessly',
    '`TOKEN_LIMIT_PER_USER` and `TOKEN_LIMIT`: `tests/contracts/`, `npm run bench:memory`',
  ],
  [
    'F15',
    'thousands of idle connections, slow headers and bodies, no file descriptors left',
    '`tests/shared/http/slowClients.test.ts`',
  ],
  [
    'F16, F17',
    'too little processor time, a small heap',
    'no test starves a process on purpose, but the machine of this run was shared and busy',
  ],
  ['F19', 'logs that cannot be written', '`tests/shared/log/log.test.ts`, `tests/shared/log/securityLog.test.ts`'],
  ['F20', 'a mail server that is down, hangs or is slow', '`tests/auth/users/mailServers.test.ts`'],
  [
    'F22',
    'a store that is down when Auth starts; a Business that starts first',
    '`tests/auth/stores/redisFailures.test.ts`, `tests/auth/stores/postgres.test.ts`, `tests/business/business.test.ts`',
  ],
  [
    'F10',
    'a PostgreSQL whose disk is full',
    'not tested; F18 covers SQLite, and anything that PostgreSQL refuses is 503: `tests/auth/stores/sqlite.test.ts`',
  ],
  [
    'F23',
    'two processes of Auth on one store: a token revoked through one is refused by the other',
    '`tests/commands/workers.test.ts`, and F25 above, where Business asks two Auths and clients log out at one of them',
  ],
  [
    'F24',
    'a crash between two steps of one change',
    'only by chance: F1 kills Auth at random moments, including during a password change. The second step is completed at the next start: `tests/auth/users/unfinishedChanges.test.ts`',
  ],
]

const mended: [found: string, mended: string, test: string][] = [
  [
    'when Auth took 300 ms for a call (F4), two of three `/data` requests were 503: only requests that arrived within the same 50 ms shared a call, and at most two calls ran at a time',
    'all waiting requests share the next call, each with its own deadline',
    '`tests/business/authClient.test.ts`: “has all waiting requests share the next call, …”',
  ],
  [
    "when the machine's clock was set back two hours (F11), expired tokens were valid again, and all others lived two hours longer",
    "Auth's clock never goes back while it runs",
    '`tests/auth/clock.test.ts`',
  ],
  [
    'when Auth was stopped (F14), clients that had just connected were reset before they were accepted: thirty at each stop, at full load with one connection per request',
    'waiting connections are accepted first, and the queue is kept as short as possible; at full load one in five stops still resets a connection',
    '`tests/shared/http/gracefulClose.test.ts`: “loses no client that has connected, …”',
  ],
  [
    'on a busy machine a storm of log-ins (F12) quadrupled the p99 of validations',
    'hash threads have a lower priority than the thread that validates (Linux)',
    '`tests/auth/users/passwords.test.ts`: “the threads that hash …”',
  ],
  [
    'when one of two Auths had hung (F25), a touch that it had begun before and completed after shortened a session that the other Auth had extended meanwhile',
    'a touch never shortens a token',
    '`tests/contracts/tokenStoreUse.ts`: “never shortens a token when a touch arrives late, …”',
  ],
  [
    'when a Redis Cluster was split and Auth reached both sides (F27), it kept asking the master that had lost the others: its tokens were 503 until the split ended, although a replica had been promoted',
    'Auth asks the other nodes which masters there are',
    '`tests/auth/stores/redisClusterSplit.test.ts`: “refuses all commands: its promoted replica is used, …”',
  ],
  [
    'when the network between Auth and Redis was one-way (F26), an expired session came back to life: Redis received a use of it after it had been refused, but judged the use by the time at which Auth had sent it',
    'a store refuses for good what it has once found expired',
    '`tests/contracts/tokenStoreLate.ts`',
  ],
  [
    'on a slow machine a log-out ended nothing if a renewal that began a moment later was completed first',
    'the log-out ends the session whenever it was renewed',
    '`tests/auth/tokens/tokens.test.ts`: “end with a log-out by the …”',
  ],
  [
    'a session that was logged out while it or its user was paused worked again after the pause',
    'the log-out ends it',
    '`tests/auth/routes/authority.test.ts`: “a session that is paused, or whose user is, ends with its log-out”',
  ],
]

export function reportOf(proof: Proof): string {
  const { date, machine, command, seed, drives, restarts, storm, soak, defects, notTested } = proof
  const all = drives.map(({ judgement }) => judgement.violations.length).reduce((a, b) => a + b, 0)
  const operations = drives.reduce((sum, { result }) => sum + result.operations, soak?.result.drive.operations ?? 0)
  const skipped = [
    ...new Set(
      drives.flatMap(({ result, setting }) =>
        setting === 'clock' ? result.skipped : result.skipped.filter(reason => !reason.includes('the real one')),
      ),
    ),
  ]
  return `# Reliability

This page says what Latchkey promises under faults, how each promise was tested, and what happened. \`npm run prove\` writes it; unless
noted, every figure is from this run:

**${date}, ${machine}. Seed ${seed}. \`${command.replaceAll('\n', '`, then `')}\`. ${number(operations)} operations, ${all + (soak?.judgement.violations.length ?? 0)} violations.**

Twenty clients log in, get data, renew, list and end sessions, change passwords, race for single-use tokens, and try dead tokens, old
passwords and tokens that were never issued. Meanwhile an operator ends sessions, changes roles, pauses users and tokens, and one fault
after another is injected. All requests and answers form one history, in which a checker looks for answers that break a promise ([histories.md](histories.md)). Sessions expire
after 3 s without use and end after 20 s, some tokens after 4 s, so expiry is always near.

| store | seconds under faults | operations | faults | violations |
|---|--:|--:|--:|--:|
${drives.map(({ result, judgement, setting }) => `| ${result.storeName}:${settings[setting]} | ${Math.round(result.seconds)} | ${number(result.operations)} | ${result.faults.length} | ${judgement.violations.length} |`).join('\n')}
${violationsOf(proof)}
${guaranteeSection()}
## Faults

| column | meaning |
|---|---|
| /data | the answers of \`/data\` and \`/admin/data\` from the beginning of the fault to the recovery: 200 and 401 (a verdict), 503 (no verdict), and others, such as 403 (the user lacks the role) |
| slowest | the slowest of those answers |
| undone in | how long it took to undo the fault; after a kill or stop, how long the process took to start under load |
| recovery | the time from then to the first \`/data\` of 20 consecutive operations, five of them \`/data\` or more, that are all answered, none with 5xx |
| lost | requests that were accepted and not answered, including those in progress in a killed process |
| false admissions | requests that were admitted but should have been refused |
| kept | recovery within ${number(mostRecoveryMs)} ms, no \`/data\` slower than ${number(mostDataMs)} ms, no false admission. The checker verifies every other promise, answer by answer |

${faultTable(drives.filter(drive => !isOnHosts(drive)))}
${[...skipped, ...notTested].map(reason => `\n**Not tested:** ${reason}.`).join('')}
${twoAuthsSection(drives.flatMap(({ result }) => result.faults))}${networkSection(drives.filter(isOnHosts))}
### The slowest 503

Business waits one second for a verdict, and may notice up to 50 ms late that the second is over. A \`/data\` that took longer was slow for
another reason, usually because Auth, Business, the store and the twenty clients shared the cores of this machine.

## Restarts

${clientSentence}

| | times | requests | lost | not 200 | slowest | |
|---|--:|--:|--:|--:|--:|---|
${restarts.map(result => `| ${result.what} | ${result.times} | ${number(result.requests)} | ${result.lost} | ${inWords(result.otherStatuses) || 0} | ${ms(result.slowestMs)} | ${kept(isKeptOver(result))} |`).join('\n')}

A request is lost if it was accepted and not answered. These clients close a connection that they have
not used for 400 ms (RFC 9112, section 9.5), less than half of the time for which a stopping service still answers. A client that waits
longer can lose a request that it sends in the very millisecond in which the service closes the connection.
${storm ? stormSection(storm) : ''}${soak ? soakSection(soak) : ''}${defects.length > 0 ? defectSection(defects) : ''}
## What the runs have found so far

Each of these was found by \`npm run prove\`, has been fixed, and has a test that fails without the fix.

| found | fix | test |
|---|---|---|
${mended.map(row => `| ${row.join(' | ')} |`).join('\n')}

## What is tested elsewhere, or not at all

| fault | | where |
|---|---|---|
${elsewhere.map(row => `| ${row.join(' | ')} |`).join('\n')}

All processes ran on one machine. Not covered:

* packets that are late, out of order or doubled
* disks that report data as written although it is not, and machines that lose power
* failover of Redis and PostgreSQL under the load of these clients; its tests are in \`tests/auth/stores/redisReplicas.test.ts\` and
  \`postgresStandby.test.ts\`
* other faults of a Redis Cluster, which are in \`tests/auth/stores/redisCluster.test.ts\`
* a clock that is set back while Auth is not running

## Repeating it

\`\`\`
${command}
npm run prove -- --store redis --faults F6,F9 --seed ${seed} --keep /tmp/histories
npm run prove -- --check /tmp/histories/redis.jsonl
npm run prove -- --defects
npm run prove -- --parts network --seconds 100
\`\`\`

The same seed repeats what clients choose and when faults happen. The outcome also depends on the machine, so the history of a run with
a violation is kept, and its path is printed.
`
}

const clientSentence = `Twenty clients request \`/data\` without a pause, on persistent connections, while \`./startServer\` receives the signal in the table.`

function violationsOf({ drives, soak }: Proof): string {
  const lines = [...drives, ...(soak ? [{ result: soak.result.drive, judgement: soak.judgement }] : [])].flatMap(
    ({ result, judgement }) => [
      ...judgement.violations.map(violation => `* ${result.storeName}: ${violationInWords(violation)}`),
      ...result.problems.map(problem => `* ${result.storeName}: ${problem}`),
    ],
  )
  return lines.length === 0 ? '' : `\n**Found:**\n\n${lines.slice(0, 50).join('\n')}\n`
}

function promised(promises: Promised[]): string {
  return `| promised | found | |
|---|---|---|
${promises.map(({ promise, found, isKept }) => `| ${promise} | ${found} | ${kept(isKept)} |`).join('\n')}`
}

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

In ${minutes} minutes on ${storeName} without faults the clients made ${number(operations)} operations; ${judgement.violations.length} answers broke a promise.

![Resources of the processes](reliability.svg)

Memory moves in steps, as V8 grows and shrinks its heap. A leak would be a line that only rises. Growth is the
difference between the medians of the second and the last fifth of the time.

${promised(promisesOfSoak(result))}

At the end Auth used ${last.authMb.toFixed(0)} MB and Business ${last.businessMb.toFixed(0)} MB; together they had ${last.descriptors} open file descriptors, and the store held ${number(last.tokens)} tokens. The p99 delay
of Auth's event loop was ${ms(last.loopDelayMs)} in the last interval and at most ${ms(most)} in any interval.
`
}

function defectSection(defects: TriedDefect[]): string {
  const found = defects.filter(({ violations }) => violations > 0).length
  return `
## Does the checker find defects?

Each defect was planted in the services, which then ran for some seconds. The checker found ${found} of ${defects.length} defects, each by the rule that it breaks.

| defect | store | rule | violations |
|---|---|---|--:|
${defects.map(({ name, storeName, rule, violations }) => `| ${name} | ${storeName} | ${rule} | ${violations || '**not found**'} |`).join('\n')}
`
}

export function chartOf({ drive: { footprints, storeName } }: SoakResult, note: string): string {
  const lines: [title: string, unit: string, figure: (footprint: Footprint) => number][] = [
    ['resident memory of Auth', 'MB', ({ authMb }) => authMb],
    ['resident memory of Business', 'MB', ({ businessMb }) => businessMb],
    ['open file descriptors of both services', '', ({ descriptors }) => descriptors],
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
  <title>Resources of the processes in ${(endS / 60).toFixed(0)} minutes</title>
  <style>text { font: 13px system-ui, sans-serif; fill: #5b6472 } .title { font-size: 16px; font-weight: bold }</style>
  <text class="title" x="10" y="24">${(endS / 60).toFixed(0)} minutes on ${storeName}, each chart from zero to its maximum</text>
  <text x="10" y="44">${note}</text>
${panels.join('\n')}
</svg>
`
}
