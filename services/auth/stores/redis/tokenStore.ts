// The token store in Redis or Valkey, on one server or a cluster. Hides the content of a key (scripts.ts), routing in a
// cluster, and how a server that is down, hung or demoted becomes an error within a second (connection.ts).
import {
  type EndReason,
  guestLimit,
  type InsertOutcome,
  type Refusal,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
  usualLogin,
} from '../ports.ts'
import { openRedis } from './connection.ts'
import {
  deleteRenewedScript,
  deleteScript,
  endUserScript,
  explainScript,
  hashBytes,
  insertScript,
  kinds,
  listScript,
  noLogin,
  pageScript,
  renewScript,
  sweepScript,
  touchScript,
} from './scripts.ts'

const graceMs = 60_000 // a key outlives its tokens by this; its expiry only cleans up, and never ends a token
const floorMs = 24 * 3_600_000 // minimum lifetime of a floor, longer than a login verified before it can stay in flight
const rememberedMs = 10 * 60_000 // for `explain`
const rememberedPerSlice = 50 // of the tokens that one sweep step deletes: an operator asks about a few, not a million

const tolerated = 1000 // a recount replaces the running count only if it differs by more; SCAN returns some keys twice

/** A token as the scripts return it. */
type Answer = [
  rest: string,
  kind: number,
  version: number,
  createdAt: number,
  lastUsedAt: number,
  expiresAt: number,
  absoluteExpiresAt: number,
  ttlMs: number,
  refreshCount: number,
  purpose: string,
  userId: string | null,
  username: string | null,
  loginId: string | null,
]

/** Resolves when Redis answers and is configured not to lose data; rejects with a message for the operator. */
export async function openTokenStore(url: string, warn: (warning: string) => void): Promise<TokenStore> {
  const redis = await openRedis(url, warn)
  const { prefix, run } = redis
  const keyOf = (tag: string) => `${prefix}{${tag}}`
  // Token counts as known to this process. Changes by other processes are included after each complete sweep.
  const atMost = { all: 0, guests: 0 }
  /**
   * The state of a sweep: keys found but not yet examined, tokens left alive, and the number of tokens that this
   * process has added or removed since the sweep began.
   */
  const newRound = () => ({
    scan: redis.scan(`${prefix}{????}`),
    isAtEnd: false,
    pending: [] as string[],
    left: [0, 0, 0] as [number, number, number], // by kind
    leftGuests: 0,
    changes: 0,
  })
  let round = newRound()
  let counted: [number, number, number] = [0, 0, 0] // by the last sweep
  let stride = 1 // keys per step, adjusted so that they hold about as many tokens as a step may examine

  function count(change: 1 | -1, userId: string | null): void {
    atMost.all += change
    if (userId === null) atMost.guests += change
    round.changes++
  }

  /** Not awaited: if it fails, `explain` only has less to report. */
  function remember(id: string, reason: 'expired' | 'ended' | EndReason, at: number): void {
    redis.setFor(keyOf(tagOf(id)) + restOf(id), `${reason}:${at}`, rememberedMs)
  }

  /** Makes one call to a single server, or in a cluster one call per key. */
  async function admit(refs: TokenRef[], now: number, purpose: string | null, mode: 'touch' | 'look') {
    const answers: (TokenRecord | null)[] = refs.map(() => null)
    const ask = async (places: number[]) => {
      const mentioned = places.map(place => refs[place] as TokenRef)
      const keys = mentioned.map(({ id }) => keyOf(tagOf(id)))
      const args = [
        now,
        purpose ?? '',
        mode,
        graceMs,
        ...mentioned.flatMap(({ id, hash }) => [restOf(id), short(hash)]),
      ]
      const found = (await redis.call(touchScript, keys, args)) as (Answer | null)[]
      for (const [i, place] of places.entries()) {
        const answer = found[i] ?? null
        const { id } = refs[place] as TokenRef
        if (answer && answer[0] !== restOf(id)) throw new Error('Redis has answered something else')
        answers[place] = answer && recordOf(tagOf(id), answer)
      }
    }
    await Promise.all(redis.together(refs.map(({ id }) => keyOf(tagOf(id)))).map(ask))
    return answers
  }

  async function end(
    id: string,
    script: typeof deleteScript,
    args: (Buffer | string | number)[],
    now: number,
  ): Promise<TokenRecord | null> {
    const answer = (await redis.call(script, [keyOf(tagOf(id))], [restOf(id), ...args])) as Answer | null
    if (answer === null) return null
    const token = recordOf(tagOf(id), answer)
    count(-1, token.userId)
    remember(id, 'revoked', now)
    return token
  }

  return {
    insert({ id, hash }, token, { perUser, total }, now) {
      return run(async (): Promise<InsertOutcome> => {
        const { kind, purpose, userId, username, credentialVersion, createdAt, lastUsedAt, expiresAt } = token
        const room = Math.min(total, Number.MAX_SAFE_INTEGER) - atMost.all
        const guestRoom = userId === null ? guestLimit(total) - atMost.guests : Number.POSITIVE_INFINITY
        const limits = [Math.min(perUser, Number.MAX_SAFE_INTEGER), Math.min(room, guestRoom)]
        const what = [restOf(id), short(hash), kinds.indexOf(kind) + 1, purpose ?? '', userId ?? '', username ?? '']
        const when = [createdAt, lastUsedAt, expiresAt, token.absoluteExpiresAt, token.ttlMs, token.refreshCount]
        const isUsual = token.loginId === usualLogin(token)
        const args = [
          now,
          graceMs,
          ...limits,
          ...what,
          credentialVersion,
          ...when,
          isUsual ? '' : token.loginId === null ? noLogin : restOf(token.loginId),
        ]
        const outcome = (await redis.call(insertScript, [keyOf(tagOf(id))], args)) as InsertOutcome | [string]
        if (typeof outcome === 'string') return outcome
        const [evicted] = outcome
        if (evicted === '') count(1, userId)
        else remember(tagOf(id) + evicted, 'evicted', now)
        return 'inserted'
      })
    },

    touch(refs, now, purpose) {
      return run(async () => {
        const tokens = await admit(refs, now, purpose, 'touch')
        for (const token of tokens) {
          if (token?.kind !== 'single-use') continue
          count(-1, token.userId)
          remember(token.id, 'consumed', now)
        }
        return tokens
      })
    },

    look: (refs, now, purpose) => run(() => admit(refs, now, purpose, 'look')),

    renew({ id, hash }, newHash, lineage, now) {
      return run(async () => {
        const args = [now, graceMs, restOf(id), short(hash), short(newHash), short(lineage)]
        const answer = (await redis.call(renewScript, [keyOf(tagOf(id))], args)) as Answer | null
        return answer && recordOf(tagOf(id), answer)
      })
    },

    delete: ({ id, hash }, now) => run(() => end(id, deleteScript, [short(hash)], now)),

    deleteRenewed: (id, lineage, renewedUntil, now) =>
      run(() => end(id, deleteRenewedScript, [short(lineage), renewedUntil], now)),

    deleteById: (id, now) => run(() => end(id, deleteScript, [''], now)),

    endUser(tag, userId, version, keep) {
      const kept = keep !== null && tagOf(keep) === tag ? restOf(keep) : ''
      return run(async () => void (await redis.call(endUserScript, [keyOf(tag)], [userId, version, kept, floorMs])))
    },

    findByUser(tag, userId, now) {
      return run(async () => {
        if (!userId.isWellFormed()) return [] // a lone surrogate would be sent as U+FFFD
        const answers = (await redis.call(listScript, [keyOf(tag)], [userId, now])) as Answer[]
        const tokens = answers.map(answer => recordOf(tag, answer))
        return tokens.sort((a, b) => a.createdAt - b.createdAt || (a.id < b.id ? -1 : 1))
      })
    },

    explain({ id, hash }, now, purpose) {
      return run(async (): Promise<Refusal> => {
        const [found, remembered] = await Promise.all([
          redis.call(explainScript, [keyOf(tagOf(id))], [restOf(id), short(hash)]),
          redis.get(keyOf(tagOf(id)) + restOf(id)),
        ])
        if (found === null) {
          if (remembered === null) return { reason: 'unknown' }
          const [reason, at] = remembered.split(':') as ['ended' | 'expired' | EndReason, string]
          return reason === 'ended' ? { reason } : { reason, at: Number(at) }
        }
        const [first, expiresAt, own] = found as [number, number?, string?]
        if (expiresAt === undefined) return { reason: 'renewed', at: first }
        if (first === 1) return { reason: 'ended' }
        if (expiresAt <= now) return { reason: 'expired', at: expiresAt }
        return { reason: own === (purpose ?? '') ? 'unknown' : 'other_purpose' }
      })
    },

    async deleteExpired(now, limit) {
      if (round.isAtEnd && round.pending.length === 0) round = newRound()
      const current = round
      const slice = async () => {
        if (current.pending.length === 0) {
          const { value } = await current.scan.next()
          if (!value) throw new Error('another slice of this sweep has failed')
          current.pending.push(...value.keys)
          current.isAtEnd = value.isAtEnd
        }
        const keys = current.pending.splice(0, Math.min(stride, limit))
        const groups = redis.together(keys)
        let removed = 0
        let removedGuests = 0
        let unfinished = 0
        const sweep = async (places: number[]) => {
          const swept = places.map(place => keys[place] as string)
          const args = [now, Math.floor(limit / groups.length)]
          const answer = (await redis.call(sweepScript, swept, args)) as [
            number[],
            [number, number, number, number],
            [number, string, number, 0 | 1][],
          ]
          const [more, left, gone] = answer
          current.pending.push(...more.map(i => swept[i - 1] as string))
          for (const kind of [0, 1, 2] as const) current.left[kind] += left[kind]
          current.leftGuests += left[3]
          unfinished += more.length
          removed += gone.length
          removedGuests += gone.filter(([, , , isGuest]) => isGuest).length
          for (const [i, rest, expiredAt] of gone.slice(0, rememberedPerSlice)) {
            const tag = (swept[i - 1] as string).slice(prefix.length + 1, -1)
            remember(tag + rest, expiredAt > 0 ? 'expired' : 'ended', expiredAt)
          }
        }
        await Promise.all(groups.map(sweep))
        stride = unfinished > 0 ? Math.max(keys.length - unfinished, 1) : Math.min(stride * 2, limit)
        atMost.all -= removed
        atMost.guests -= removedGuests
        const done = current.isAtEnd && current.pending.length === 0
        // This process's own changes during the sweep explain a difference up to `changes`; anything beyond that was
        // done by other processes.
        const inAll = current.left[0] + current.left[1] + current.left[2]
        const isOff = (counted: number, known: number) => Math.abs(counted - known) > current.changes + tolerated
        if (done && isOff(inAll, atMost.all)) atMost.all = inAll
        if (done && isOff(current.leftGuests, atMost.guests)) atMost.guests = current.leftGuests
        if (done) counted = current.left
        return { removed, done }
      }
      try {
        return await redis.run(slice)
      } catch (error) {
        round = newRound() // part of this round may not have been examined
        throw error
      }
    },

    list(cursor, limit, now) {
      return run(async () => {
        const { keys, next } = await redis.page(`${prefix}{????}`, cursor, limit)
        const tokens: TokenRecord[] = []
        const read = async (places: number[]) => {
          const asked = places.map(place => keys[place] as string)
          for (const [i, answer] of (await redis.call(pageScript, asked, [now])) as [number, Answer][]) {
            tokens.push(recordOf((asked[i - 1] as string).slice(prefix.length + 1, -1), answer))
          }
        }
        await Promise.all(redis.together(keys).map(read))
        return { tokens, next }
      })
    },

    census: () => run(async () => ({ sliding: counted[0], fixed: counted[1], 'single-use': counted[2] })),

    close: redis.close,
  }
}

const tagOf = (id: string): string => id.slice(0, 4)
const restOf = (id: string): string => id.slice(4)

/** The part of a SHA-256 that the store keeps. */
function short(hash: string): Buffer {
  return Buffer.from(hash, 'base64url').subarray(0, hashBytes)
}

function recordOf(tag: string, answer: Answer): TokenRecord {
  const [
    rest,
    kindNumber,
    credentialVersion,
    createdAt,
    lastUsedAt,
    expiresAt,
    absoluteExpiresAt,
    ttlMs,
    refreshCount,
  ] = answer
  const [, , , , , , , , , purposeOrNone, userId, username, ownLogin] = answer
  const kind = kinds[kindNumber - 1] as TokenRecord['kind']
  const purpose = purposeOrNone === '' ? null : purposeOrNone
  const id = tag + rest
  const loginOf = (stored: string | null) =>
    stored === null ? usualLogin({ id, kind, purpose, userId }) : stored === noLogin ? null : tag + stored
  return {
    id,
    kind,
    purpose,
    userId,
    username,
    credentialVersion,
    createdAt,
    loginId: loginOf(ownLogin),
    lastUsedAt,
    expiresAt,
    absoluteExpiresAt,
    ttlMs,
    refreshCount,
  }
}
