// Issues, validates, renews, revokes and lists tokens. Hides their format, the hashing of secrets, and how lifetimes are
// computed.
import { AppError } from '../../../shared/http/errors.ts'
import type { Refusal, TokenKind, TokenLimits, TokenRecord, TokenRef, TokenStore } from '../stores/ports.ts'
import { drawTokenId, drawUnknownRef, issuedAtOf, opaqueFormat, type TokenFormat, tagOf } from './format.ts'

export type { TokenKind, TokenRecord }

/** Emitted after the fact. Carries token ids, never secrets. */
export type TokenEvent =
  | {
      type: 'issued'
      tokenId: string
      userId: string | null
      kind: TokenKind
      purpose: string | null
      expiresAt: number
    }
  /** `slid` is emitted for every admitted token, also a fixed or single-use one; the latter is consumed by then. */
  | {
      type: 'slid' | 'renewed' | 'revoked'
      tokenId: string
      userId: string | null
      kind: TokenKind
      expiresAt: number
    }
  /** An earlier secret was used too late to have been in flight: one of the two holders is a thief. */
  | { type: 'renewed_secret_reused'; tokenId: string; userId: string | null }
  /** Every token of the user except the one with the id `keep`; all of them if `keep` is null. */
  | { type: 'sessions_revoked'; userId: string; keep: string | null }
  | { type: 'refused'; tokenId: string | null; reason: RefusalReason; secondsAgo?: number }

type RefusalReason =
  | Exclude<Refusal['reason'], 'unknown' | 'ended'>
  | 'never_existed'
  | 'all_sessions_revoked'
  | 'before_restart'
  | 'not_looked_up'
  | 'malformed'
  | 'not_a_session'

export interface TokenOwner {
  id: string
  username: string
  credentialVersion: number
}

export interface TokenTerms {
  kind: TokenKind
  purpose: string | null
  /** Null for a guest. */
  owner: TokenOwner | null
  /** The log-in behind the token: `now`, the same as that of another token, or null if none proves who holds it. */
  login: 'now' | Pick<TokenRecord, 'loginId'> | null
  /** Idle time of a sliding token, lifetime of any other. */
  ttlMs: number
  /** Absolute lifetime of a sliding token, however often it is used. */
  absoluteTtlMs: number
}

export interface IssuedToken {
  /** Returned once, when the token is issued; it cannot be recovered. */
  secret: string
  token: TokenRecord
}

export interface TokensOptions {
  store: TokenStore
  /** Format of the secrets; opaque by default. */
  format?: TokenFormat
  /** Epoch milliseconds. */
  now: () => number
  /** Idle time of a session. */
  ttlMs: number
  /** Absolute life of a session. */
  absoluteTtlMs: number
  limits: TokenLimits
  observe: (event: TokenEvent) => void
}

export interface ValidateOptions {
  /** Only tokens of this purpose are admitted; null admits only tokens that have none. */
  purpose: string | null
  /** If false, nothing is extended or consumed. */
  touch: boolean
}

export type Tokens = ReturnType<typeof createTokens>

const mostExplanations = 100 // at a time, so that a scan for tokens does not make the store explain each guess
const reuseGraceMs = 10_000 // requests with the old secret may still be in flight this long after a renewal

/** Every function rejects with `unavailable` if the store does not answer. */
export function createTokens({
  store,
  format = opaqueFormat,
  now,
  ttlMs,
  absoluteTtlMs,
  limits,
  observe,
}: TokensOptions) {
  const startedAt = now()
  let explanations = 0

  /** Null if the owner's credentials have changed since the log-in verified them. */
  async function issue(terms: TokenTerms): Promise<IssuedToken | null> {
    const { kind, purpose, owner, login, ttlMs, absoluteTtlMs } = terms
    const createdAt = now()
    const absoluteExpiresAt = createdAt + (kind === 'sliding' ? absoluteTtlMs : ttlMs)
    const id = drawTokenId(owner?.id ?? null, createdAt)
    const token: TokenRecord = {
      id,
      kind,
      purpose,
      userId: owner?.id ?? null,
      username: owner?.username ?? null,
      credentialVersion: owner?.credentialVersion ?? 0,
      createdAt,
      loginId: login === 'now' ? id : (login?.loginId ?? null),
      lastUsedAt: createdAt,
      expiresAt: Math.min(createdAt + ttlMs, absoluteExpiresAt),
      absoluteExpiresAt,
      ttlMs,
      refreshCount: 0,
    }
    const secret = await format.draw(token, null)
    const outcome = await store.insert(refOf(secret), token, limits, createdAt)
    if (outcome === 'full') throw new AppError('unavailable', 'There are too many tokens already; try again later.')
    if (outcome === 'ended') return null
    if (outcome === 'taken') return issue(terms) // draw again: equal ids in one second are one in 10^9
    observe({ type: 'issued', tokenId: id, userId: token.userId, kind, purpose, expiresAt: token.expiresAt })
    return { secret, token }
  }

  /** Expects a well-formed secret. */
  const refOf = (secret: string): TokenRef => format.parse(secret) as TokenRef

  /** `isUse`: if one of the secrets is an earlier secret of a session, its use may end the session. */
  async function validate(
    secrets: string[],
    { purpose, touch }: ValidateOptions,
    isUse = touch,
  ): Promise<(TokenRecord | null)[]> {
    const refs = secrets.map(secret => format.parse(secret))
    const wellFormed = refs.filter(ref => ref !== null)
    const at = now()
    const found = wellFormed.length === 0 ? [] : await store[touch ? 'touch' : 'look'](wellFormed, at, purpose)
    let next = 0
    return refs.map((ref, i) => {
      if (ref === null) {
        observe({ type: 'refused', tokenId: null, reason: 'malformed' })
        return null
      }
      const token = found[next++] ?? null
      if (token === null) tellWhy(secrets[i] as string, ref, at, purpose, isUse)
      else if (touch) tell('slid', token)
      return token
    })
  }

  function tell(type: 'slid' | 'renewed' | 'revoked', { id, userId, kind, expiresAt }: TokenRecord): void {
    observe({ type, tokenId: id, userId, kind, expiresAt })
  }

  /** Runs after the verdict, so no request waits for it. The use of a secret that was renewed long ago ends the session. */
  function tellWhy(secret: string, ref: TokenRef, at: number, purpose: string | null, isUse: boolean): void {
    const notLookedUp = () => observe({ type: 'refused', tokenId: ref.id, reason: 'not_looked_up' })
    if (explanations >= mostExplanations) {
      notLookedUp()
      return
    }
    explanations++
    store
      .explain(ref, at, purpose)
      .then(refusal => {
        observe({ type: 'refused', tokenId: ref.id, ...reasonOf(ref.id, refusal, at, startedAt) })
        return isUse && refusal.reason === 'renewed' ? endReused(secret, ref.id, at) : undefined
      }, notLookedUp)
      .finally(() => explanations--)
  }

  /** RFC 9700, section 4.14.2. If the store is unavailable (which is reported elsewhere), the next use tries again. */
  async function endReused(secret: string, id: string, at: number): Promise<void> {
    const ended = await store.deleteRenewed(id, format.lineageOf(secret), at - reuseGraceMs, at).catch(() => null)
    if (ended === null) return
    observe({ type: 'renewed_secret_reused', tokenId: id, userId: ended.userId })
    tell('revoked', ended)
    if (hasRelatives(ended)) await endRelatives(ended).catch(() => {})
  }

  /** Removes the token of this secret, which may be its current secret or an earlier one. */
  async function remove(secret: string, ref: TokenRef): Promise<TokenRecord | null> {
    const at = now()
    // The order matters: a renewal in between makes the secret an earlier one, and never the other way round.
    return (await store.delete(ref, at)) ?? (await store.deleteRenewed(ref.id, format.lineageOf(secret), at, at))
  }

  async function lookAtSession(secret: string): Promise<TokenRecord | null> {
    const [seen] = await validate([secret], { purpose: null, touch: false }, true)
    if (!seen || isSession(seen)) return seen ?? null
    observe({ type: 'refused', tokenId: seen.id, reason: 'not_a_session' })
    return null
  }

  /** All tokens of the user that came from the same log-in, in rounds: the first may have been exchanged meanwhile. */
  async function endRelatives({ id, userId, loginId }: TokenRecord): Promise<void> {
    const isRelative = (other: TokenRecord) => other.loginId === loginId && other.id !== id
    for (;;) {
      const own = await store.findByUser(tagOf(userId as string), userId as string, now())
      const relatives = own.filter(isRelative)
      if (relatives.length === 0) return
      for (const relative of relatives) {
        const ended = await store.deleteById(relative.id, now())
        if (ended) tell('revoked', ended)
      }
    }
  }

  /**
   * Ends a live token by `remove`, and with it every other that its log-in led to: sessions with the refresh token that
   * they were made with, and the refresh token with any of them.
   */
  async function endLogin(
    token: TokenRecord,
    remove: () => Promise<TokenRecord | null> = () => store.deleteById(token.id, now()),
  ): Promise<TokenRecord | null> {
    // The token itself last: if the store fails before that, the client still holds it and can try again.
    if (hasRelatives(token)) await endRelatives(token)
    const ended = await remove()
    if (ended) tell('revoked', ended)
    // A refresh token made sessions until it was gone.
    if (hasRelatives(token) && !isSession(token)) await endRelatives(token)
    return ended
  }

  /** Ends a token that was not looked up before, by `remove` alone. */
  async function endUnseen(remove: Promise<TokenRecord | null>): Promise<boolean> {
    const ended = await remove
    if (ended) tell('revoked', ended)
    if (ended && hasRelatives(ended)) await endRelatives(ended)
    return ended !== null
  }

  return {
    issue,

    /**
     * The same, and the user's older tokens of this purpose end, with all that they were exchanged for: of several that
     * are issued at the same time the last one stays. Returns null when `issue` does.
     */
    async issueOnly(terms: TokenTerms & { purpose: string; owner: TokenOwner }): Promise<IssuedToken | null> {
      const issued = await issue(terms)
      const { id } = terms.owner
      const own = await store.findByUser(tagOf(id), id, now())
      for (const older of own.filter(({ purpose }) => purpose === terms.purpose).slice(0, -1)) await endLogin(older)
      return issued
    },

    /** For a user who has just logged in. Returns null when `issue` does. */
    issueSession(owner: TokenOwner): Promise<IssuedToken | null> {
      return issue({ kind: 'sliding', purpose: null, owner, login: 'now', ttlMs, absoluteTtlMs })
    },

    /** In order: each admitted token, now extended or consumed; null for every other, whatever the reason. */
    validate: (secrets: string[], options: ValidateOptions) => validate(secrets, options),

    /** The live session of this secret, neither extended nor consumed; null for every other token. */
    lookAtSession,

    /** The session of this secret, extended; null for every other token, which is then neither extended nor consumed. */
    async useSession(secret: string): Promise<TokenRecord | null> {
      if (!(await lookAtSession(secret))) return null
      const [used] = await validate([secret], { purpose: null, touch: true })
      return used ?? null
    },

    /** A new secret for the same session, replacing the old one in the same step; null if it is not a live session. */
    async renew(secret: string): Promise<IssuedToken | null> {
      const session = await lookAtSession(secret)
      if (!session) return null
      const ref = refOf(secret)
      const newSecret = await format.draw(session, secret)
      const at = now()
      const token = await store.renew(ref, refOf(newSecret).hash, format.lineageOf(secret), at)
      if (token === null) {
        tellWhy(secret, ref, at, null, true)
        return null
      }
      tell('renewed', token)
      return { secret: newSecret, token }
    },

    /**
     * Ends the session of this secret, which may have been renewed away, and all that its log-in led to; true also if it
     * was dead already. False for a live token that is no session, which stays. Holds once resolved; if it rejects, the session must be taken for live.
     */
    async endSession(secret: string): Promise<boolean> {
      const ref = format.parse(secret)
      if (ref === null) return true
      const [seen] = await store.look([ref], now(), null)
      if (!seen) {
        const { reason } = await store.explain(ref, now(), null)
        if (reason === 'renewed') await endUnseen(remove(secret, ref))
        return reason !== 'other_purpose'
      }
      if (!isSession(seen)) return false
      await endLogin(seen, () => remove(secret, ref))
      return true
    },

    /** Ends the token, and all that its log-in led to. Holds once resolved. */
    async end(token: TokenRecord): Promise<void> {
      await endLogin(token)
    },

    /** The same for the token of this secret, whatever it is for; nothing if there is none. */
    async revoke(secret: string): Promise<void> {
      const ref = format.parse(secret)
      if (ref) await endUnseen(remove(secret, ref))
    },

    /** The same by the id. False if there is no such token or, with a `userId`, it is not one of this user's sessions. */
    async revokeById(id: string, userId?: string): Promise<boolean> {
      if (userId === undefined) return endUnseen(store.deleteById(id, now()))
      const own = await store.findByUser(tagOf(userId), userId, now())
      const session = own.find(token => token.id === id && isSession(token))
      return session !== undefined && (await endLogin(session)) !== null
    },

    /**
     * Ends every token of the user that was issued under a smaller version, but for the one of the id `keep`. Holds once
     * resolved.
     */
    async endUser(userId: string, credentialVersion: number, keep: string | null): Promise<void> {
      await store.endUser(tagOf(userId), userId, credentialVersion, keep)
      observe({ type: 'sessions_revoked', userId, keep })
    },

    /** Live tokens of all users, about `limit` of them; see `TokenStore.list` for the cursors. */
    page(cursor: string | null, limit: number): Promise<{ tokens: TokenRecord[]; next: string | null }> {
      return store.list(cursor, limit, now())
    },

    /** The live tokens of one user, of every kind and purpose, oldest first. */
    tokensOf(userId: string): Promise<TokenRecord[]> {
      return store.findByUser(tagOf(userId), userId, now())
    },

    /** How many tokens there are of each kind, as of the last sweep or later. */
    census(): Promise<Record<TokenKind, number>> {
      return store.census()
    },

    /** Rejects if the store does not answer. Emits no `refused` event. */
    async reachStore(): Promise<void> {
      await store.look([drawUnknownRef(now())], now(), null)
    },

    /** The user's live sessions, oldest first. */
    async sessionsOf(userId: string): Promise<TokenRecord[]> {
      return (await store.findByUser(tagOf(userId), userId, now())).filter(isSession)
    },
  }
}

/** When the user proved who they are, by the log-in that led to this token; null if none did. Never later than it was. */
export function provedAt({ id, loginId, createdAt }: TokenRecord): number | null {
  if (loginId === null) return null
  return loginId === id ? createdAt : issuedAtOf(loginId)
}

/** A sliding token that a user got by logging in. */
function isSession({ kind, purpose, userId }: TokenRecord): boolean {
  return kind === 'sliding' && purpose === null && userId !== null
}

/** Whether other tokens may have come from the same log-in: not if the log-in opened this session and nothing else. */
function hasRelatives(token: TokenRecord): boolean {
  return token.loginId !== null && !(isSession(token) && token.loginId === token.id)
}

function reasonOf(
  id: string,
  refusal: Refusal,
  at: number,
  startedAt: number,
): { reason: RefusalReason; secondsAgo?: number } {
  if ('at' in refusal) return { reason: refusal.reason, secondsAgo: Math.round((at - refusal.at) / 1000) }
  if (refusal.reason === 'other_purpose') return { reason: 'other_purpose' }
  if (refusal.reason === 'ended') return { reason: 'all_sessions_revoked' }
  // The id contains the second in which it was issued.
  return { reason: issuedAtOf(id) + 1000 <= startedAt ? 'before_restart' : 'never_existed' }
}
