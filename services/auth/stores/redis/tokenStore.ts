// The token store in Redis or Valkey, on one server or a cluster. Hides the content of a key (scripts.ts), routing in a
// cluster, and how a server that is down, hung or demoted becomes an error within a second (connection.ts).
import { within } from '../../../../shared/deadline.ts'
import {
  type EndReason,
  type Explanation,
  type Found,
  floorKeptMs,
  guestLimit,
  type InsertOutcome,
  isAdmitted,
  onlyOne,
  programLimit,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
  tagOf,
} from '../tokenPort.ts'
import { openRedis, type Redis, type Script } from './connection.ts'
import { type Args, createJournal, type Journal } from './journal.ts'
import {
  changeScript,
  deleteOwnScript,
  deleteScript,
  explainScript,
  findRenewedScript,
  insertScript,
  listScript,
  pageScript,
  raiseFloorScript,
  renewScript,
  repeatChangeScript,
  setAuthorityScript,
  touchScript,
} from './scripts.ts'
import { createSweep } from './sweep.ts'
import { createTokenCounts } from './tokenCounts.ts'
import {
  hasUsedUpParent,
  keyOf,
  keyPattern,
  type PackedToken,
  packed,
  packedAuthority,
  packedChanges,
  packedRepeat,
  restOf,
  short,
  tagOfId,
  tagOfKey,
  unpacked,
} from './tokens.ts'

const formatVersion = 1 // raise it when an older Latchkey would misread what this one writes
const graceMs = 60_000 // a key outlives its tokens by this much; the key's expiry only cleans up, and never ends a token
const shardTimeoutMs = 700 // less than the deadline of a call, so that the tokens of other shards get their verdicts
const rememberedMs = 10 * 60_000 // for `explain`

/** Resolves when Redis answers and is configured not to lose data; rejects with a message for the operator. */
export async function openTokenStore(url: string, warn: (warning: string) => void): Promise<TokenStore> {
  const journal = createJournal()
  const redis = await openRedis(url, {
    warn,
    async onReplaced(send) {
      const repeated = await journal.replay(send)
      warn(
        `the Redis server was restarted or replaced; ${repeated} revocations, renewals and password changes of the last ten minutes were repeated.`,
      )
    },
  })
  await checkFormat(redis).catch(async error => {
    journal.close()
    await redis.close()
    throw error
  })
  const { prefix, run } = redis
  const counts = createTokenCounts()
  const record = createRecord(redis, journal)
  const keyOfId = (id: string) => keyOf(prefix, tagOfId(id))

  /** Not awaited: if this fails, `explain` just has less to report. */
  function remember(id: string, reason: 'expired' | 'ended' | EndReason, at: number): void {
    redis.setFor(keyOfId(id) + restOf(id), `${reason}:${at}`, rememberedMs)
  }

  /** To be called when this process has ended a token. */
  function noteEnd({ id, userId }: Pick<TokenRecord, 'id' | 'userId'>, reason: EndReason, now: number): void {
    counts.change(-1, userId)
    remember(id, reason, now)
    journal.add(keyOfId(id), deleteScript, [restOf(id), ''])
  }

  async function touch(refs: TokenRef[], now: number, purpose: string | null, mode: 'touch' | 'touchSession') {
    const onParentUsedUp = (parent: Pick<TokenRecord, 'id' | 'userId'>) => noteEnd(parent, 'consumed', now)
    const tokens = await admit(redis, { refs, now, purpose, mode, onParentUsedUp })
    for (const token of tokens) {
      if (isAdmitted(token) && (token.kind === 'single-use' || token.usesLeft === 0)) noteEnd(token, 'consumed', now)
    }
    return tokens
  }

  function end(id: string, script: Script, args: Args, now: number) {
    return run(async () => {
      const token = tokenIn(await redis.callDurably(script, [keyOfId(id)], [restOf(id), ...args]), id)
      if (token !== null) noteEnd(token, 'revoked', now)
      return token
    })
  }

  async function change(id: string, now: number, changes: Args): Promise<TokenRecord | null> {
    const again = (changed: unknown): [Script, Args] => [repeatChangeScript, packedRepeat(changed as PackedToken)]
    return tokenIn(await record(changeScript, keyOfId(id), [restOf(id), now, ...changes], again), id)
  }

  return {
    insert: ({ id, hash }, token, { perUser, total }, now) =>
      run(async (): Promise<InsertOutcome> => {
        const room = Math.min(total, Number.MAX_SAFE_INTEGER) - counts.all()
        const guestRoom = token.userId === null ? guestLimit(total) - counts.guests() : Number.POSITIVE_INFINITY
        const limits = [Math.min(perUser, Number.MAX_SAFE_INTEGER), Math.min(room, guestRoom)]
        const mayHold = Math.min(programLimit(perUser), Number.MAX_SAFE_INTEGER)
        const args = [now, graceMs, ...limits, ...packed(token, hash), mayHold]
        const outcome = (await redis.call(insertScript, [keyOfId(id)], args)) as InsertOutcome | [string]
        if (typeof outcome === 'string') return outcome
        const [evicted] = outcome
        if (evicted === '') counts.change(1, token.userId)
        else remember(tagOfId(id) + evicted, 'evicted', now)
        return 'inserted'
      }),

    touch: (refs, now, purpose) => run(() => touch(refs, now, purpose, 'touch')),
    touchSession: (ref, now) => run(async () => onlyOne(await touch([ref], now, null, 'touchSession'))),
    look: (refs, now, purpose) =>
      run(() => admit(redis, { refs, now, purpose, mode: 'look', onParentUsedUp: () => {} })),

    renew: ({ id, hash }, newHash, lineage, now) =>
      run(async () => {
        const args = [now, graceMs, restOf(id), short(hash), short(newHash), short(lineage)]
        return tokenIn(await record(renewScript, keyOfId(id), args), id)
      }),

    delete: ({ id, hash }, now) => end(id, deleteScript, [short(hash)], now),

    findRenewed: (id, lineage, renewedUntil) =>
      run(async () => {
        const args = [restOf(id), short(lineage), renewedUntil]
        return tokenIn(await redis.call(findRenewedScript, [keyOfId(id)], args), id)
      }),

    deleteById(id, now, owner) {
      if (owner === null) return end(id, deleteScript, [''], now)
      if (!owner.isWellFormed()) return run(async () => null) // a lone surrogate would be sent as U+FFFD
      return end(id, deleteOwnScript, [now, owner], now)
    },

    raiseFloor: (userId, version, keep) =>
      run(async () => {
        const tag = tagOf(userId)
        const kept = keep !== null && tagOfId(keep) === tag ? restOf(keep) : ''
        await record(raiseFloorScript, keyOf(prefix, tag), [userId, version, kept, floorKeptMs])
      }),

    setAuthority: (userId, authority) =>
      run(async () => {
        const args = [userId, packedAuthority(authority), floorKeptMs]
        await record(setAuthorityScript, keyOf(prefix, tagOf(userId)), args)
      }),

    change: (id, changes, now) => run(() => change(id, now, packedChanges(changes))),
    pause: (id, now) => run(() => change(id, now, [...packedChanges({ paused: true }), 'unpaused'])),

    findByUser: (userId, now) =>
      run(async () => {
        if (!userId.isWellFormed()) return []
        const tag = tagOf(userId)
        const answers = (await redis.call(listScript, [keyOf(prefix, tag)], [userId, now])) as PackedToken[]
        const tokens = answers.map(answer => unpacked(tag, answer))
        return tokens.sort((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1))
      }),

    explain: (ref, now, purpose) => run(() => explain(redis, ref, now, purpose)),

    deleteExpired: createSweep(redis, counts, remember),

    list: (cursor, limit, now) => run(() => listPage(redis, cursor, limit, now)),

    counts: () =>
      run(async () => {
        const [sliding, fixed, singleUse] = counts.byKind()
        return { sliding, fixed, 'single-use': singleUse }
      }),

    readClock: () => run(redis.time),

    async close() {
      journal.close()
      await redis.close()
    },
  }
}

/** The token in the answer of a script; null if there is none. */
function tokenIn(answer: unknown, id: string): TokenRecord | null {
  return answer === null ? null : unpacked(tagOfId(id), answer as PackedToken)
}

/**
 * Makes changes that a failover must not undo. What `again` makes of the answer is repeated then, or else the same call. A script
 * answers with null if it changes nothing.
 */
function createRecord(redis: Redis, journal: Journal) {
  return async (script: Script, key: string, args: Args, again = (_: unknown): [Script, Args] => [script, args]) => {
    const answer = await redis.callDurably(script, [key], args)
    if (answer !== null) journal.add(key, ...again(answer))
    return answer
  }
}

/** Marks the data with the version of their format. Rejects if a newer Latchkey has written them. */
async function checkFormat({ client, prefix }: Redis): Promise<void> {
  const key = `${prefix}format`
  // A replica refuses to write; every call that matters is refused there too.
  await client.set(key, formatVersion, { condition: 'NX' }).catch(() => {})
  const found = await client.get(key).catch((error: Error) => {
    // Auth starts nevertheless, and is not ready until this is over.
    if (/^(LOADING|MASTERDOWN|CLUSTERDOWN)/.test(error.message)) return null
    throw error
  })
  if (Number(found) > formatVersion) {
    throw new Error(
      `the tokens in Redis were written by a newer Latchkey (format ${found}); use that version or a later one`,
    )
  }
}

interface Asking {
  refs: TokenRef[]
  now: number
  purpose: string | null
  mode: 'touch' | 'touchSession' | 'look'
  /** Called when the touch of a delegated token has taken the last use of its parent, and so has ended the parent. */
  onParentUsedUp: (parent: Pick<TokenRecord, 'id' | 'userId'>) => void
}

/** Makes one call to a single server, or in a cluster one call per key, of which some may fail. */
async function admit(redis: Redis, { refs, now, purpose, mode, onParentUsedUp }: Asking): Promise<Found[]> {
  const answers: Found[] = refs.map(() => null)
  const keyOfRef = ({ id }: TokenRef) => keyOf(redis.prefix, tagOfId(id))
  const ask = async (places: number[]) => {
    const mentioned = places.map(place => refs[place] as TokenRef)
    const packedRefs = mentioned.flatMap(({ id, hash }) => [restOf(id), short(hash)])
    const args = [now, purpose ?? '', mode, graceMs, ...packedRefs]
    const found = (await redis.call(touchScript, mentioned.map(keyOfRef), args)) as (PackedToken | number | null)[]
    for (const [i, place] of places.entries()) {
      const answer = found[i] ?? null
      const { id } = refs[place] as TokenRef
      if (typeof answer === 'number') {
        answers[place] = { limited: true, retryAfterMs: answer }
        continue
      }
      if (answer && answer[0] !== restOf(id)) throw new Error('Redis answered with another token')
      const token = answer && unpacked(tagOfId(id), answer)
      answers[place] = token
      if (answer && token?.parent && hasUsedUpParent(answer)) onParentUsedUp({ ...token, id: token.parent.id })
    }
  }
  const groups = redis.together(refs.map(keyOfRef))
  if (groups.length < 2) {
    await Promise.all(groups.map(ask))
    return answers
  }
  const late = () => new Error(`a shard did not answer within ${shardTimeoutMs} ms`)
  const outcomes = await Promise.allSettled(groups.map(places => within(shardTimeoutMs, ask(places), late)))
  const failed = outcomes.filter(outcome => outcome.status === 'rejected')
  if (failed.length === groups.length) throw (failed[0] as PromiseRejectedResult).reason
  for (const [i, { status }] of outcomes.entries()) {
    if (status === 'rejected') for (const place of groups[i] as number[]) answers[place] = 'unavailable'
  }
  return answers
}

/** What `explainScript` returns. */
type ExplainedFields = [number, number?, (0 | 1)?, string?, (0 | 1)?, (0 | 1)?]

async function explain(
  redis: Redis,
  { id, hash }: TokenRef,
  now: number,
  purpose: string | null,
): Promise<Explanation> {
  const key = keyOf(redis.prefix, tagOfId(id))
  const [found, remembered] = await Promise.all([
    redis.call(explainScript, [key], [restOf(id), short(hash), now]),
    redis.get(key + restOf(id)),
  ])
  if (found === null) {
    if (remembered === null) return { reason: 'unknown' }
    const [reason, at] = remembered.split(':') as ['ended' | 'expired' | EndReason, string]
    return reason === 'ended' ? { reason } : { reason, at: Number(at) }
  }
  const [first, expiresAt, isExpired, own, isPaused, isOrphaned] = found as ExplainedFields
  if (expiresAt === undefined) return { reason: 'renewed', at: first }
  if (first === 1) return { reason: 'ended' }
  if (isExpired === 1) return { reason: 'expired', at: expiresAt }
  if (isOrphaned === 1) return { reason: 'parent_ended' }
  if (own !== (purpose ?? '')) return { reason: 'other_purpose' }
  return { reason: isPaused === 1 ? 'paused' : 'live' }
}

async function listPage(redis: Redis, cursor: string | null, limit: number, now: number) {
  const { prefix } = redis
  const { keys, next } = await redis.page(keyPattern(prefix), cursor, limit)
  const tokens: TokenRecord[] = []
  const read = async (places: number[]) => {
    const asked = places.map(place => keys[place] as string)
    for (const [i, answer] of (await redis.call(pageScript, asked, [now])) as [number, PackedToken][]) {
      tokens.push(unpacked(tagOfKey(prefix, asked[i - 1] as string), answer))
    }
  }
  await Promise.all(redis.together(keys).map(read))
  return { tokens, next }
}
