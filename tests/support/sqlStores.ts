// What the tests of the SQL stores share: both stores, every call of them, and a workload whose results can be checked.

import { randomUUID } from 'node:crypto'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { openTokenStore, openUserStore } from '../../services/auth/stores/index.ts'
import type { TokenRecord, TokenRef, TokenStore } from '../../services/auth/stores/tokenPort.ts'
import type { UserRecord, UserStore } from '../../services/auth/stores/userPort.ts'
import { slackMs } from './slack.ts'
import { lineage, minute, newHash, newTokenAt, newUserAt, unlimited } from './storeFixtures.ts'
import { query } from './stores.ts'

export const start = 1_800_000_000_000

/** A session that lives for a minute, of a new user. */
export function newToken(members: Partial<TokenRecord> = {}) {
  return newTokenAt(start, {
    expiresAt: start + minute,
    absoluteExpiresAt: start + 10 * minute,
    ttlMs: minute,
    ...members,
  })
}

export const newUser = (members: Partial<UserRecord> = {}) => newUserAt(start, members)

export interface Stores {
  tokens: TokenStore
  users: UserStore
}

export async function openStores(url: string): Promise<Stores & { close(): Promise<void> }> {
  const tokens = await openTokenStore(url)
  const users = await openUserStore(url)
  return { tokens, users, close: async () => void (await Promise.all([tokens.close(), users.close()])) }
}

export async function insertedToken({ tokens }: Pick<Stores, 'tokens'>, members: Partial<TokenRecord> = {}) {
  const made = newToken(members)
  expect(await tokens.insert(made.ref, made.token, unlimited, start)).to.equal('inserted')
  return made
}

export async function insertedUser(
  { users }: Pick<Stores, 'users'>,
  members: Partial<UserRecord> = {},
): Promise<UserRecord> {
  const user = newUser(members)
  expect(await users.insert(user)).to.equal(true)
  return user
}

export const writes = ({ tokens, users }: Stores) => ({
  insert: () => insertedToken({ tokens }),
  touch: () => tokens.touch([newToken().ref], start, null),
  renew: () => tokens.renew(newToken().ref, newHash(), lineage, start),
  delete: () => tokens.delete(newToken().ref, start),
  deleteById: () => tokens.deleteById(newToken().token.id, start, null),
  raiseFloor: () => tokens.raiseFloor(randomUUID(), 2, null),
  deleteExpired: () => tokens.deleteExpired(start, 10),
  'insert a user': () => users.insert(newUser()),
  'update a user': () => users.update(randomUUID(), 1, { confirmedAt: start }),
  'delete a user': () => users.delete(randomUUID()),
})

export const reads = ({ tokens, users }: Stores) => ({
  look: () => tokens.look([newToken().ref], start, null),
  findByUser: () => tokens.findByUser(randomUUID(), start),
  explain: () => tokens.explain(newToken().ref, start, null),
  list: () => tokens.list(null, 10, start),
  counts: () => tokens.counts(),
  findByUsername: () => users.findByUsername('nobody'),
  findById: () => users.findById(randomUUID()),
  'list users': () => users.list(null, 10),
  findUnfinished: () => users.findUnfinished(10),
})

export const everyCall = (stores: Stores) => ({ ...writes(stores), ...reads(stores) })

/** `n` of each call, with unique names. */
export function repeated(n: number, calls: Record<string, () => Promise<unknown>>): typeof calls {
  const all = Array.from({ length: n }, (_, i) => Object.entries(calls).map(([name, call]) => [`${name} ${i}`, call]))
  return Object.fromEntries(all.flat())
}

/** Makes every call, and fifty more at the same time, most of which wait for a connection. */
export function withCrowd(stores: Stores): Record<string, () => Promise<unknown>> {
  const { touch, findById } = everyCall(stores)
  return { ...everyCall(stores), ...repeated(25, { touch, findById }) }
}

/** Works with both stores until `stop` is called, and records which changes were acknowledged and which may have happened. */
export function startWork(stores: Stores) {
  const { tokens, users } = stores
  const knownTokens = new Map<TokenRef, TokenRecord | null>()
  const knownUsers = new Map<string, UserRecord | null>()
  const doubtfulTokens: [TokenRef, TokenRef][] = [] // one of the two must be valid
  const doubtfulUsers: [UserRecord, UserRecord][] = [] // the stored user is one of the two
  const slow: string[] = []
  let isOver = false
  let rejected = 0

  async function timed<T>(name: string, call: Promise<T>): Promise<T> {
    const startedAt = performance.now()
    try {
      return await call
    } finally {
      const ms = performance.now() - startedAt
      if (ms >= 1000 + slackMs) slow.push(`${name} took ${Math.round(ms)} ms`)
    }
  }

  async function useToken(turn: number): Promise<void> {
    const { ref, token } = newToken()
    const userId = token.userId as string
    expect(await timed('insert', tokens.insert(ref, token, unlimited, start))).to.equal('inserted')
    knownTokens.set(ref, token)
    const what = turn % 4
    if (what === 0) return
    knownTokens.delete(ref)
    if (what === 1) await timed('delete', tokens.delete(ref, start))
    if (what === 2) await timed('raiseFloor', tokens.raiseFloor(userId, 2, null))
    if (what === 3) {
      const renewed = { id: ref.id, hash: newHash() }
      const record = await timed('renew', tokens.renew(ref, renewed.hash, lineage, start)).catch(error => {
        doubtfulTokens.push([ref, renewed])
        throw error
      })
      expect(record).to.include({ refreshCount: 1 })
      knownTokens.set(renewed, record)
    }
    knownTokens.set(ref, null)
  }

  async function useUser(turn: number): Promise<void> {
    const user = newUser()
    expect(await timed('insert a user', users.insert(user))).to.equal(true)
    knownUsers.set(user.id, user)
    const changed = { ...user, passwordHash: 'another', credentialVersion: 2 }
    knownUsers.delete(user.id)
    const { passwordHash, credentialVersion } = changed
    const update = timed('update a user', users.update(user.id, 1, { passwordHash, credentialVersion }))
    const record = await update.catch(error => {
      doubtfulUsers.push([user, changed])
      throw error
    })
    expect(record).to.deep.equal(changed)
    if (turn % 2) await timed('delete a user', users.delete(user.id))
    knownUsers.set(user.id, turn % 2 ? null : changed)
  }

  async function work(use: (turn: number) => Promise<void>): Promise<void> {
    for (let turn = 0; !isOver; turn++) {
      try {
        await use(turn)
      } catch (error) {
        if ((error as Error).name === 'AssertionError') throw error
        rejected++
        await sleep(5)
      }
    }
  }

  const workers = Promise.all(Array.from({ length: 16 }, (_, i) => work(i % 2 ? useToken : useUser)))
  workers.catch(() => {}) // `stop` rejects

  return {
    rejected: () => rejected,
    /** Stops. Acknowledged changes must hold; every other change must have happened completely or not at all. */
    async stop(): Promise<void> {
      isOver = true
      await workers
      expect(slow).to.deep.equal([])
      const refs = [...knownTokens.keys()]
      expect(await tokens.look(refs, start, null)).to.deep.equal([...knownTokens.values()])
      for (const pair of doubtfulTokens) {
        const found = await tokens.look(pair, start, null)
        expect(found.filter(token => token !== null)).to.have.lengthOf(1)
      }
      for (const [id, user] of knownUsers) expect(await users.findById(id)).to.deep.equal(user)
      for (const pair of doubtfulUsers) expect(pair).to.deep.include(await users.findById(pair[0].id))
    },
  }
}

/** Queries the database without the store. */
export async function askDatabase(url: string, text: string): Promise<Record<string, unknown>[]> {
  if (!url.startsWith('sqlite:')) return query(text, url)
  const file = new DatabaseSync(url.slice('sqlite:'.length))
  try {
    return file.prepare(text).all()
  } finally {
    file.close()
  }
}
