// npm run bench:redis: memory per live token in Redis, compared with the usual layout of sessions (one JSON string
// each), and the commands and bytes per validation, batched and one by one. Uses its own redis-server.
import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient } from '@redis/client'
import { readArguments, readCount } from '../commands/arguments.ts'
import { openTokenStore } from '../services/auth/stores/index.ts'
import type { TokenRef } from '../services/auth/stores/tokenPort.ts'
import { newTokenAt } from '../tests/support/storeFixtures.ts'
import { startRedis } from './ownServers.ts'
import { describeMachine, stopAll } from './processes.ts'
import { createProgress, saveResults } from './progress.ts'
import { asJson, checkJsonOption, jsonOption, saveOption, writeJson } from './result.ts'

const usage = `Usage: npm run bench:redis -- [options]

Measures the memory of a live token in Redis, compared with a session as JSON, and the commands and bytes of a validation. Starts a
redis-server of its own.

  --tokens N   how many tokens (200000)
  --json FILE  write the result to a file
  --save       replace bench/results/redis.json, which the documents quote`

const options = readArguments(usage, {
  tokens: { type: 'string', default: '200000' },
  ...jsonOption,
  ...saveOption,
})
const tokenCount = readCount(usage, 'tokens', options.tokens)
checkJsonOption(usage, options)
const progress = createProgress(6, 15)
progress.say('Starting Redis')
const hour = 3_600_000

const { url } = await startRedis()
const client = createClient({ url })
client.on('error', () => {})
await client.connect()
const store = await openTokenStore(url)

const numberIn = (info: string, name: string) => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1])
/** The number of script calls. The statistics also count the commands within scripts, which cost no round trip. */
function scriptCallsIn(info: string): number {
  const calls = [...info.matchAll(/^cmdstat_(?:eval|evalsha|fcall)(?:_ro)?:calls=(\d+)/gm)]
  return calls.reduce((sum, [, count]) => sum + Number(count), 0)
}
const memory = async () => numberIn(await client.info('memory'), 'used_memory')

function tokenOf(userId: string, username: string) {
  const now = Date.now()
  return newTokenAt(now, { userId, username, expiresAt: now + hour, absoluteExpiresAt: now + 12 * hour, ttlMs: hour })
}

/** Fills Redis with `insert`, many at a time, and resolves to the bytes per token. */
async function fill(perUser: number, insert: (userId: string, username: string) => Promise<unknown>): Promise<number> {
  await client.flushAll()
  await sleep(100)
  const before = await memory()
  let pending: Promise<unknown>[] = []
  for (let user = 0; user < tokenCount / perUser; user++) {
    const userId = randomUUID()
    for (let i = 0; i < perUser; i++) pending.push(insert(userId, `user-${user}@example.com`))
    if (pending.length >= 500) {
      await Promise.all(pending)
      pending = []
    }
  }
  await Promise.all(pending)
  return Math.round(((await memory()) - before) / tokenCount)
}

const limits = { perUser: Infinity, total: Infinity }
const insertOurs = (userId: string, username: string) => {
  const { ref, token } = tokenOf(userId, username)
  return store.insert(ref, token, limits, token.createdAt)
}
// Like connect-redis and similar packages: a random id of 24 bytes, and the session as JSON with an expiry.
const insertJson = (userId: string, username: string) => {
  const { id, ...session } = tokenOf(userId, username).token
  const key = `sess:${randomBytes(24).toString('base64url')}`
  return client.set(key, JSON.stringify(session), { expiration: { type: 'PX', value: hour } })
}

const sizes = []
for (const perUser of [1, 10]) {
  progress.step(`memory, ${perUser} tokens for each user`)
  const ours = await fill(perUser, insertOurs)
  progress.step(`memory, ${perUser} JSON sessions for each user`)
  const json = await fill(perUser, insertJson)
  sizes.push({
    tokensPerUser: perUser,
    bytesPerToken: ours,
    bytesPerJsonSession: json,
    ratio: Number((ours / json).toFixed(2)),
  })
}
progress.end()
console.table(sizes)

await client.flushAll()
const refs: TokenRef[] = []
for (let i = 0; i < 1000; i++) {
  const { ref, token } = tokenOf(randomUUID(), `user-${i}@example.com`)
  refs.push(ref)
  await store.insert(ref, token, limits, token.createdAt)
}
const costs = []
for (const batch of [1, 64]) {
  progress.step(`validations in batches of ${batch}`)
  const callsBefore = scriptCallsIn(await client.info('commandstats'))
  const before = await client.info('stats')
  const rounds = 6400 / batch
  for (let round = 0; round < rounds; round++) {
    const asked = Array.from({ length: batch }, (_, i) => refs[(round * batch + i) % refs.length] as TokenRef)
    const found = await store.touch(asked, Date.now(), null)
    if (found.includes(null)) throw new Error('a live token was refused')
  }
  const after = await client.info('stats')
  const calls = scriptCallsIn(await client.info('commandstats')) - callsBefore
  const per = (name: string) => Number(((numberIn(after, name) - numberIn(before, name)) / 6400).toFixed(2))
  costs.push({
    batch,
    scriptCallsPerValidation: Number((calls / 6400).toFixed(3)),
    bytesInPerValidation: per('total_net_input_bytes'),
    bytesOutPerValidation: per('total_net_output_bytes'),
  })
}
progress.end()
console.table(costs)
const report = {
  machine: describeMachine(),
  date: new Date().toISOString(),
  tokenCount,
  memory: sizes,
  validations: costs,
}
writeJson(options, report)
saveResults(options.save, { 'redis.json': asJson(report) })
await store.close()
client.destroy()
stopAll()
process.exit()
