// The section of docs/reliability.md on what an acknowledged change is worth: per store and event, with the run or test behind
// each cell.

const holds = 'holds'

interface Topology {
  name: string
  /** Auth is killed and started again. */
  authDies: string
  /** The store is killed and started again, or fails over to another server. */
  storeDies: string
  /** Bytes between Auth and the store vanish, or connections break. */
  cutOff: string
  clock: string
  diskFull: string
}

const own =
  'its clock is Auth’s: a jump ahead ends sessions early; if it was an error, those that nobody used meanwhile live on (F11, `clock.test.ts`)'
const compared = '503 while the clocks differ by more than `MAX_CLOCK_SKEW_MS`; holds (F11, `clockOfStore.test.ts`)'

const topologies: Topology[] = [
  {
    name: 'memory',
    authDies: 'all tokens are lost, so every user logs in again; nothing that was revoked comes back (F1)',
    storeDies: '–',
    cutOff: '–',
    clock: own,
    diskFull: '–',
  },
  {
    name: 'memory with a snapshot',
    authDies: 'as memory; a planned restart keeps sessions and revocations (F14, `snapshot.test.ts`)',
    storeDies: '–',
    cutOff: '–',
    clock: own,
    diskFull: 'the restart keeps nothing, and the log says so (`snapshot.test.ts`)',
  },
  {
    name: 'SQLite',
    authDies: `${holds} (F1)`,
    storeDies: '–',
    cutOff: '–',
    clock: own,
    diskFull: `what must be written is 503; what was acknowledged ${holds} (F18)`,
  },
  {
    name: 'PostgreSQL',
    authDies: `${holds} (F1)`,
    storeDies: `${holds} (F10)`,
    cutOff: `503; ${holds} (F5)`,
    clock: compared,
    diskFull: 'not tested',
  },
  {
    name: 'PostgreSQL with a synchronous standby',
    authDies: `${holds} (F1)`,
    storeDies: `${holds} when the standby is promoted (\`postgresStandby.test.ts\`). With an asynchronous standby, what it lacks is undone`,
    cutOff:
      'without the standby, log-ins, revocations and password changes are 503; validations work (`postgresStandby.test.ts`)',
    clock: compared,
    diskFull: 'not tested',
  },
  {
    name: 'Redis, `appendfsync always`',
    authDies: `${holds} (F1)`,
    storeDies: `${holds} (F6). With \`everysec\` the last second can be lost when the machine loses power: not tested`,
    cutOff: `503; ${holds} (F5)`,
    clock: compared,
    diskFull: 'full memory: log-ins are 503, revocations hold (F8)',
  },
  {
    name: 'Redis with replicas',
    authDies: `${holds} (F1)`,
    storeDies:
      'revocations, renewals and password changes hold, unless the Auth that made them dies with the master; log-ins of the last moments can be lost (`redisReplicas.test.ts`)',
    cutOff: `503; ${holds} (F5, F9)`,
    clock: compared,
    diskFull: 'as one Redis',
  },
  {
    name: 'Redis with replicas and `REDIS_WAIT_REPLICAS`',
    authDies: `${holds} (F1)`,
    storeDies:
      'revocations, renewals and password changes hold, if a replica is promoted that has confirmed them: let it be the number of all replicas; log-ins can be lost (`redisReplicas.test.ts`)',
    cutOff: 'revocations are 503 while too few replicas confirm them (`redisReplicas.test.ts`)',
    clock: compared,
    diskFull: 'as one Redis',
  },
  {
    name: 'Redis Cluster',
    authDies: `${holds} (F1)`,
    storeDies: 'per shard as Redis with replicas; only requests for its tokens are 503 (`redisCluster.test.ts`)',
    cutOff: 'as when the shard dies (`redisCluster.test.ts`)',
    clock: 'as Redis; the median of the masters counts (`clockOfStore.test.ts`)',
    diskFull: 'as one Redis, per shard',
  },
]

/** What an acknowledged change of roles or a pause is worth, where it differs from a revocation. */
const authorities: [topology: string, user: string, token: string][] = [
  [
    'memory',
    'holds, because the user store has it (F1)',
    'is lost with the token when Auth dies (F1); a planned restart keeps it (F14)',
  ],
  ['SQLite', `${holds} (F1)`, `${holds} (F1)`],
  ['PostgreSQL', `${holds} (F1, F5, F10)`, `${holds} (F1, F5, F10)`],
  [
    'Redis, `appendfsync always`',
    `${holds} (F1, F5, F6), also if Redis comes back empty: the next log-in brings it`,
    `${holds} (F1, F5, F6); is lost with the token if Redis comes back empty`,
  ],
  [
    'PostgreSQL with a synchronous standby',
    `503 without the standby, so what was answered with 200 ${holds} when it is promoted (\`postgresStandby.test.ts\`)`,
    'the same',
  ],
  [
    'Redis with replicas',
    `${holds} as a revocation does, with and without \`REDIS_WAIT_REPLICAS\` (\`redisReplicas.test.ts\`)`,
    'the same',
  ],
  ['Redis Cluster', 'per shard as Redis with replicas; its failover is not tested', 'the same'],
]

/** Whether a limit is exact, also over a SIGKILL. */
const limits: [topology: string, rate: string, uses: string][] = [
  [
    'memory',
    `${holds}; when Auth dies the rate of a token is lost with it, and the bucket of a user is full (F1). A planned restart keeps both (F14)`,
    `${holds}; is lost with the token when Auth dies (F1)`,
  ],
  ['SQLite', `${holds} (F1)`, `${holds} (F1)`],
  ['PostgreSQL', `${holds} (F1, F5, F10, F25)`, `${holds} (F1, F5, F10, F25)`],
  [
    'Redis, `appendfsync always`',
    `${holds} (F1, F5, F6, F25); if Redis comes back empty, the bucket of a user is full`,
    `${holds} (F1, F5, F6, F25); is lost with the token if Redis comes back empty`,
  ],
  [
    'with standbys, replicas or a cluster',
    'a failover may lose the last uses before it: not tested',
    'a failover may lose the last uses before it: not tested',
  ],
]

const others = [
  [
    'Keycloak',
    'names lost log-outs as the failure to avoid; sessions are committed asynchronously, so a crash of the database can lose those of a fraction of a second',
    'High availability guides, “Concepts for multi-cluster deployments”',
  ],
  [
    'Vault',
    'with performance standbys a cluster is eventually consistent; tokens and leases are not replicated to performance secondaries',
    'developer.hashicorp.com/vault/docs/enterprise/consistency',
  ],
  [
    'Redis (and connect-redis, which adds nothing to it)',
    'replication is asynchronous, and WAIT improves it without making Redis strongly consistent',
    'redis.io/docs/latest/commands/wait',
  ],
  ['Ory Hydra', 'keeps everything in SQL; makes no statement on failover that we found', ''],
]

/** A log-in, a revocation and a password change that were answered, after each event. */
export function guaranteeSection(): string {
  const rows = topologies.map(
    ({ name, authDies, storeDies, cutOff, clock, diskFull }) =>
      `| ${[name, authDies, storeDies, cutOff, clock, diskFull].join(' | ')} |`,
  )
  return `## What an acknowledged change is worth

A log-in, a revocation (also a log-out and a renewal) or a password change has been answered with success. What is left of it after an event?
“Holds” means all three, with users in SQLite or PostgreSQL. F numbers are the runs below; the tests are in \`tests/auth/\` and \`tests/auth/stores/\`.

| tokens in | Auth dies | the store dies or fails over | the store is cut off | clocks | the disk is full |
|---|---|---|---|---|---|
${rows.join('\n')}

What others state, in their own documents:

| | | source |
|---|---|---|
${others.map(row => `| ${row.join(' | ')} |`).join('\n')}

### Roles and pauses

A change of roles, a pause or a resume has been answered with 200. Every request that begins after the answer obeys it: the checker knows this as
\`stale authority\` and \`stale pause\` ([histories.md](histories.md#what-is-checked)). If the answer was 503, the change may be made later.

| tokens in | roles, or the pause of a user | the pause of a token |
|---|---|---|
${authorities.map(row => `| ${row.join(' | ')} |`).join('\n')}

### Limits

A token or a user has a rate, or a token a number of uses, and two processes of Business use it at once, beyond what it allows. Are there ever more
requests admitted? The checker knows this as \`limit exceeded\`, and the opposite as \`limited without cause\`. “Holds” means never, with one Auth
that is killed and started again (F1), and with Business killed (F21); with F25 also over two Auths.

| tokens in | a rate | a number of uses |
|---|---|---|
${limits.map(row => `| ${row.join(' | ')} |`).join('\n')}
`
}
