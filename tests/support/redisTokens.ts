// What the tests of tokens in Redis share: every call, a workload whose results can be checked, and looks into the server.

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import type { TokenRecord, TokenRef, TokenStore } from '../../services/auth/stores/tokenPort.ts'
import { drawTokenId } from '../../services/auth/tokens/format.ts'
import type { RedisServer } from './redis.ts'
import { slackMs } from './slack.ts'
import type { Calls } from './storeFaults.ts'
import { lineage, type MadeToken, minute, newHash, newTokenAt, unlimited } from './storeFixtures.ts'
import { until } from './until.ts'

export const garbage = Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')
export const day = 24 * 60 * minute
export const start = Date.now()

export const newToken = (members: Partial<TokenRecord> = {}): MadeToken => newTokenAt(start, members)

export async function inserted(store: TokenStore, members: Partial<TokenRecord> = {}): Promise<MadeToken> {
  const made = newToken(members)
  expect(await store.insert(made.ref, made.token, unlimited, start)).to.equal('inserted')
  return made
}

/** Inserts `n` tokens in groups, because all at once would miss the deadline on a busy machine. */
export async function insertedMany(
  store: TokenStore,
  n: number,
  members: Partial<TokenRecord> = {},
): Promise<MadeToken[]> {
  const made: MadeToken[] = []
  while (made.length < n) {
    const length = Math.min(n - made.length, 200)
    made.push(...(await Promise.all(Array.from({ length }, () => inserted(store, members)))))
  }
  return made
}

export const touch = async (store: TokenStore, ref: TokenRef, now = start): Promise<TokenRecord | null> =>
  (await store.touch([ref], now, null))[0] as TokenRecord | null

export const look = async (store: TokenStore, ref: TokenRef, now = start): Promise<TokenRecord | null> =>
  (await store.look([ref], now, null))[0] as TokenRecord | null

export const raiseFloor = (store: TokenStore, userId: string, version: number): Promise<void> =>
  store.raiseFloor(userId, version, null)

export async function sweepRound(store: TokenStore, now: number, limit = 1000): Promise<number> {
  for (let total = 0; ; ) {
    const { removed, done } = await store.deleteExpired(now, limit)
    total += removed
    if (done) return total
  }
}

/** Calls that an outdated or half-loaded server must not answer. */
export const careful = (store: TokenStore): Calls => ({
  touch: () => store.touch([newToken().ref], start, null),
  look: () => store.look([newToken().ref], start, null),
  renew: () => store.renew(newToken().ref, newHash(), lineage, start),
  delete: () => store.delete(newToken().ref, start),
  deleteById: () => store.deleteById(newToken().token.id, start, null),
  raiseFloor: () => raiseFloor(store, randomUUID(), 2),
  findByUser: () => store.findByUser(randomUUID(), start),
  insert: () => inserted(store),
})

export const everyCall = (store: TokenStore): Calls => ({
  ...careful(store),
  explain: () => store.explain(newToken().ref, start, null),
  list: () => store.list(null, 10, start),
  deleteExpired: () => store.deleteExpired(start, 10),
})

/** Makes every call, and fifty more touches at the same time. */
export function crowdOf(calls: Calls): Calls {
  const crowd = Array.from({ length: 50 }, (_, i) => [`call ${i}`, calls['touch']] as [string, () => Promise<unknown>])
  return { ...calls, ...Object.fromEntries(crowd) }
}

export const isAnswered = (store: TokenStore): Promise<boolean> =>
  touch(store, newToken().ref).then(
    () => true,
    () => false,
  )

/** Works with a store until `stop` is called, and records which changes were acknowledged and which may have happened. */
export function startWork(
  store: TokenStore,
  workers = 16,
  idOf: (turn: number) => string | undefined = () => undefined,
  /** Users whose tag is in the same slot as the ids from `idOf`. The tokens of each user are ended once. */
  usersToEnd: string[] = [],
) {
  const known = new Map<TokenRef, boolean>() // whether the token must be valid
  const doubtful: [TokenRef, TokenRef][] = [] // one of the two must be valid
  const problems: string[] = []
  let isOver = false
  let answered = 0
  let rejected = 0

  async function timed<T>(name: string, call: Promise<T>): Promise<T> {
    const startedAt = performance.now()
    try {
      const answer = await call
      answered++
      return answer
    } finally {
      const ms = performance.now() - startedAt
      if (ms >= 1000 + slackMs) problems.push(`${name} took ${Math.round(ms)} ms`)
    }
  }

  async function mustOpen(what: string, made: MadeToken, ref = made.ref): Promise<void> {
    const answer = await timed('touch', touch(store, ref))
    if (answer?.id !== made.token.id)
      problems.push(`${what}: ${answer === null ? 'refused' : `taken for ${answer.id}`}`)
  }

  async function mustNotOpen(what: string, ref: TokenRef): Promise<void> {
    if ((await timed('touch', touch(store, ref))) !== null) problems.push(`${what}: it opens`)
  }

  async function use(turn: number): Promise<void> {
    const id = idOf(turn)
    const userToEnd = turn % 6 === 4 && id !== undefined ? usersToEnd.pop() : undefined
    const what = turn % 6 === 4 && id !== undefined && userToEnd === undefined ? 0 : turn % 6
    const kind = what === 1 ? 'single-use' : 'sliding'
    const made = newToken({ kind, ...(userToEnd !== undefined ? { userId: userToEnd } : id !== undefined && { id }) })
    const { ref, token } = made
    const userId = token.userId as string
    const outcome = await timed('insert', store.insert(ref, token, unlimited, start))
    if (outcome !== 'inserted') problems.push(`insert: ${outcome}`)
    if (what === 0) {
      await mustOpen('a new one', made)
      known.set(ref, true)
    }
    if (what === 1) {
      await mustOpen('a single-use one', made)
      known.set(ref, false)
    }
    if (what === 2) {
      const deleted = await timed('delete', store.delete(ref, start))
      if (deleted?.id !== token.id) problems.push('delete: nothing there')
      known.set(ref, false)
      await mustNotOpen('a deleted one', ref)
    }
    if (what === 3) {
      const deleted = await timed('deleteById', store.deleteById(token.id, start, null))
      if (deleted?.id !== token.id) problems.push('deleteById: nothing there')
      known.set(ref, false)
    }
    if (what === 4) {
      await timed('raiseFloor', store.raiseFloor(userId, 2, null))
      known.set(ref, false)
      await mustNotOpen('one of a user who was ended', ref)
      const late = newToken({ userId, id: token.id.slice(0, 4) + drawTokenId(null, start).slice(4) })
      const outcome = await timed('insert', store.insert(late.ref, late.token, unlimited, start))
      if (outcome !== 'ended') problems.push(`insert below a floor: ${outcome}`)
    }
    if (what === 5) {
      const renewed = { id: ref.id, hash: newHash() }
      const answer = await timed('renew', store.renew(ref, renewed.hash, lineage, start)).catch(error => {
        doubtful.push([ref, renewed])
        throw error
      })
      if (answer?.id !== token.id) problems.push('renew: nothing there')
      known.set(ref, false)
      await mustOpen('a renewed one', made, renewed)
    }
  }

  async function work(from: number): Promise<void> {
    for (let turn = from; !isOver; turn++) {
      try {
        await use(turn)
      } catch (error) {
        // After a failed test nothing calls `stop`, and this loop would keep the process alive for ever.
        if (/the store is closed/.test((error as Error).message)) return
        rejected++
        await sleep(5)
      }
    }
  }

  const all = Promise.all(Array.from({ length: workers }, (_, i) => work(i)))

  return {
    answered: () => answered,
    rejected: () => rejected,
    /** Resolves when this many more calls have been answered. */
    async more(n: number): Promise<void> {
      const enough = answered + n
      await until(() => answered >= enough)
    },
    /** Stops. Acknowledged changes must hold; every other change must have happened completely or not at all. */
    async stop(): Promise<void> {
      isOver = true
      await all
      const refs = [...known.keys()]
      const found = await store.look(refs, start, null)
      for (const [i, ref] of refs.entries()) {
        if ((found[i] !== null) !== known.get(ref)) problems.push(`${found[i] ? 'back again' : 'lost'}: ${ref.id}`)
      }
      for (const pair of doubtful) {
        const open = (await store.look(pair, start, null)).filter(token => token !== null)
        if (open.length !== 1) problems.push(`${open.length} of two open`)
      }
      expect(problems).to.deep.equal([])
    },
  }
}

/** How often a server has executed each command since it started, including calls within scripts. */
export async function commandsOf(server: RedisServer): Promise<Record<string, number>> {
  const lines = (await server.tell('info', 'commandstats')).matchAll(/^cmdstat_([^:|]+):calls=(\d+)/gm)
  return Object.fromEntries([...lines].map(([, name, calls]) => [name, Number(calls)]))
}

/** All keys, whatever their prefix, but the mark of the format. */
export async function keysOf(server: RedisServer): Promise<string[]> {
  return ((await server.command('keys', '*')) as string[]).filter(key => !key.endsWith(':format')).sort()
}

/** The slot of a key with this tag in braces. */
export function slotOf(tag: string): number {
  let crc = 0
  for (const byte of Buffer.from(tag)) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : crc << 1
  }
  return crc % 16_384
}
