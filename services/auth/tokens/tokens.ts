// Issues, validates, renews, revokes and lists tokens. Hides their format, the hashing of secrets, and how lifetimes are
// computed.
import { AppError } from '../../../shared/http/errors.ts'
import {
  type Authority,
  type Found,
  isAdmitted,
  isSession,
  noAuthority,
  onlyOne,
  type Rate,
  type TokenChanges,
  type TokenKind,
  type TokenLimits,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
} from '../stores/tokenPort.ts'
import type { TokenEvent } from './events.ts'
import { drawTokenId, drawUnknownRef, issuedAtOf, opaqueFormat, type TokenFormat } from './format.ts'
import { createRefusals, type OnReuse } from './refusals.ts'
import { createRevocation } from './revocation.ts'

export { type Found, isAdmitted, type TokenKind, type TokenRecord }

/** A sliding token that a user got by logging in. */
export type Session = TokenRecord & { userId: string; username: string }

export interface TokenOwner {
  id: string
  username: string
  credentialVersion: number
  authority: Authority
}

export interface TokenTerms {
  kind: TokenKind
  purpose: string | null
  /** Null for a guest. */
  owner: TokenOwner | null
  /** The log-in behind the token: `now`, the log-in of another token, or null if there was none. */
  login: 'now' | Pick<TokenRecord, 'loginId'> | null
  /** Idle time of a sliding token, lifetime of any other. */
  ttlMs: number
  /** Absolute lifetime of a sliding token, however often it is used. */
  absoluteTtlMs: number
  /** Epoch milliseconds. The token ends then at the latest. Null by default. */
  endsBy?: number | null | undefined
  /** Null by default: whatever the owner may do. */
  scope?: string | null | undefined
  /** Null by default: no limit of its own. */
  rate?: Rate | null | undefined
  /** How often the token can be used. Null by default: any number of times. */
  uses?: number | null | undefined
  /** Null by default: no name. */
  name?: string | null | undefined
  /** The token that this one is delegated from. Null by default: none. */
  parent?: TokenRecord | null | undefined
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
  /** `end` by default. */
  onReuse?: OnReuse
  emit: (event: TokenEvent) => void
}

export interface ValidateOptions {
  /** Only tokens of this purpose are admitted; null admits only tokens without a purpose. */
  purpose: string | null
  /** If false, nothing is extended or consumed. */
  touch: boolean
}

/** Every function rejects with `unavailable` if the store does not answer. Instants are epoch milliseconds. */
export interface Tokens {
  /**
   * Null if the owner's credentials have changed since the log-in verified them, or if the parent has ended. Rejects with `unavailable` if a limit is
   * reached.
   */
  issue(terms: TokenTerms): Promise<IssuedToken | null>

  /**
   * Like `issue`, and revokes the user's older tokens of this purpose with everything they were exchanged for. If several
   * are issued at the same time, the last one stays.
   */
  issueOnly(terms: TokenTerms & { purpose: string; owner: TokenOwner }): Promise<IssuedToken | null>

  /** Issues a session to a user who has just logged in. Returns null when `issue` does. */
  issueSession(owner: TokenOwner): Promise<IssuedToken | null>

  /**
   * The admitted token, in the state after the touch; null if it is refused. Rejects with `too_many_requests` if its limits or
   * those of its user do not allow a touch now.
   */
  validate(secret: string, options: ValidateOptions): Promise<TokenRecord | null>

  /**
   * Like `validate` for many, in the order of `secrets`. `unavailable` for each token that a part of the store holds which does
   * not answer; rejects only if no part does.
   */
  validateAll(secrets: string[], options: ValidateOptions): Promise<Found[]>

  /** Like `validateAll`, for the tokens of a client's open connections: extends and consumes nothing. */
  lookAtHeld(secrets: string[], purpose: string | null): Promise<Found[]>

  /** The live session of this secret, unchanged; null for every other token. */
  lookAtSession(secret: string): Promise<Session | null>

  /** The session of this secret, extended in one step; null for every other token, which stays as it was. */
  useSession(secret: string): Promise<Session | null>

  /** Replaces the secret of a live session in one step; null if there is no such session. */
  renew(secret: string): Promise<IssuedToken | null>

  /**
   * Revokes the session of this secret, even of an earlier secret, and every other token of its log-in. Also true if the
   * session was dead already. False for a live token that is not a session, which stays live. If this rejects, the session may
   * still be live.
   */
  revokeSession(secret: string): Promise<boolean>

  /** Revokes this token and every other token of its log-in. */
  revokeToken(token: TokenRecord): Promise<void>

  /** Like `revokeToken`, for the token of this secret, whatever its purpose; does nothing if there is no such token. */
  revoke(secret: string): Promise<void>

  /**
   * Like `revokeToken`, by id, in one step. With an `owner`, revokes only a live session of this user; with null, any
   * token. False if there is no such token.
   */
  revokeById(id: string, owner: string | null): Promise<boolean>

  /** The live token with this id, of any kind and purpose, even if it is paused. */
  find(id: string): Promise<TokenRecord | null>

  /** Changes a live token, of any kind and purpose. Null if there is none. Once resolved, every validation obeys. */
  change(id: string, changes: TokenChanges): Promise<TokenRecord | null>

  /** Revokes every token of the user that was issued under a smaller version, except the one with the id `keep`. */
  revokeByUser(userId: string, credentialVersion: number, keep: string | null): Promise<void>

  /** About `limit` live tokens of all users; see `TokenStore.list` for the cursors. */
  list(cursor: string | null, limit: number): Promise<{ tokens: TokenRecord[]; next: string | null }>

  /** The live tokens of one user, of every kind and purpose, oldest first. */
  listByUser(userId: string): Promise<TokenRecord[]>

  /** The user's live sessions, oldest first. */
  listSessions(userId: string): Promise<TokenRecord[]>

  /** The number of tokens of each kind, never older than the end of the last sweep. */
  counts(): Promise<Record<TokenKind, number>>

  /** Resolves if the store answers. Emits no event. */
  ping(): Promise<void>
}

export function createTokens(options: TokensOptions): Tokens {
  const { store, format = opaqueFormat, now, ttlMs, absoluteTtlMs, limits, onReuse = 'end', emit } = options
  const emitFor = (type: 'renewed' | 'revoked', { id, userId, kind, expiresAt }: TokenRecord) =>
    emit({ type, tokenId: id, userId, kind, expiresAt })
  const emitSlid = ({ id, userId, kind, expiresAt, usesLeft }: TokenRecord) =>
    emit({ type: 'slid', tokenId: id, userId, kind, expiresAt, isConsumed: kind === 'single-use' || usesLeft === 0 })
  const emitChanged = ({ id, userId, scope, paused, rate, usesLeft, name }: TokenRecord) =>
    emit({ type: 'changed', tokenId: id, userId, scope, paused, rate, usesLeft, name })
  const handlers = { onRevoked: (token: TokenRecord) => emitFor('revoked', token), onPaused: emitChanged }
  const { revokeRelativesOf, pauseRelativesOf, ...revocation } = createRevocation({ store, format, now, ...handlers })
  const relatives = { revokeRelativesOf, pauseRelativesOf }
  const explainRefusal = createRefusals({ store, format, startedAt: now(), relatives, onReuse, emit })

  async function issue(terms: TokenTerms): Promise<IssuedToken | null> {
    const token = newToken(terms, now())
    const { secret, ref } = await format.draw(token, null)
    const outcome = await store.insert(ref, token, limits, token.createdAt)
    if (outcome === 'full') throw new AppError('unavailable', 'There are too many tokens already; try again later.')
    if (outcome === 'ended') return null
    if (outcome === 'taken') return issue(terms) // draw again: in one second, two ids are equal once in 10^9
    const { id, userId, kind, purpose, expiresAt, scope, name, parent } = token
    emit({ type: 'issued', tokenId: id, userId, kind, purpose, expiresAt, scope, name, parentId: parent?.id ?? null })
    return { secret, token }
  }

  /**
   * The session that `find` returns for this secret. If an earlier secret of a session is used, that session may be ended.
   */
  async function findSession(
    secret: string,
    find: (ref: TokenRef, at: number) => Promise<TokenRecord | null>,
  ): Promise<Session | null> {
    const ref = format.parse(secret)
    if (ref === null) {
      emit({ type: 'refused', tokenId: null, reason: 'malformed' })
      return null
    }
    const at = now()
    const session = await find(ref, at)
    if (session === null) void explainRefusal({ secret, ref, purpose: null, asSession: true, isUse: true, at })
    return session as Session | null // `find` returns sessions only, and each of them has a user
  }

  async function lookForSession(ref: TokenRef, at: number): Promise<TokenRecord | null> {
    const token = onlyOne(await store.look([ref], at, null))
    return token && isSession(token) ? token : null
  }

  async function validateAll(secrets: string[], { purpose, touch }: ValidateOptions): Promise<Found[]> {
    const refs = secrets.map(secret => format.parse(secret))
    const wellFormed = refs.filter(ref => ref !== null)
    const at = now()
    let found: Found[] = []
    if (wellFormed.length > 0) {
      found = touch ? await store.touch(wellFormed, at, purpose) : await store.look(wellFormed, at, purpose)
    }
    let next = 0
    return refs.map((ref, i) => {
      if (ref === null) {
        emit({ type: 'refused', tokenId: null, reason: 'malformed' })
        return null
      }
      const answer = found[next++] ?? null
      if (answer === 'unavailable') return answer
      const secret = secrets[i] as string
      if (answer === null) void explainRefusal({ secret, ref, purpose, asSession: false, isUse: touch, at })
      else if (!isAdmitted(answer)) emit({ type: 'refused', tokenId: ref.id, reason: 'limited' })
      else if (touch) emitSlid(answer)
      return answer
    })
  }

  return {
    issue,
    issueSession: owner => issue({ kind: 'sliding', purpose: null, owner, login: 'now', ttlMs, absoluteTtlMs }),

    async issueOnly(terms) {
      const issued = await issue(terms)
      const own = await store.findByUser(terms.owner.id, now())
      const older = own.filter(({ purpose }) => purpose === terms.purpose).slice(0, -1)
      for (const token of older) await revocation.revokeToken(token)
      return issued
    },

    validate: async (secret, options) => onlyOne(await validateAll([secret], options)),
    validateAll,

    async lookAtHeld(secrets, purpose) {
      emit({ type: 'held', count: secrets.length })
      return validateAll(secrets, { purpose, touch: false })
    },

    lookAtSession: secret => findSession(secret, lookForSession),

    async useSession(secret) {
      const session = await findSession(secret, store.touchSession)
      if (session) emitSlid(session)
      return session
    },

    async renew(secret) {
      const session = await findSession(secret, lookForSession) // to draw the new secret, some formats need the token
      if (!session) return null
      const drawn = await format.draw(session, secret)
      const renewed = await findSession(secret, (ref, at) =>
        store.renew(ref, drawn.ref.hash, format.lineageOf(secret), at),
      )
      if (renewed === null) return null
      emitFor('renewed', renewed)
      return { secret: drawn.secret, token: renewed }
    },

    ...revocation,
    revokeById: async (id, owner) => revokeRelativesOf(await store.deleteById(id, now(), owner)),

    find: id => store.change(id, {}, now()),

    async change(id, changes) {
      const token = await store.change(id, changes, now())
      if (token) emitChanged(token)
      return token
    },

    async revokeByUser(userId, credentialVersion, keep) {
      await store.raiseFloor(userId, credentialVersion, keep)
      emit({ type: 'sessions_revoked', userId, keep })
    },

    list: (cursor, limit) => store.list(cursor, limit, now()),
    listByUser: userId => store.findByUser(userId, now()),
    listSessions: async userId => (await store.findByUser(userId, now())).filter(isSession),
    counts: () => store.counts(),

    async ping() {
      await store.look([drawUnknownRef(now())], now(), null)
    },
  }
}

function newToken(
  { kind, purpose, owner, login, ttlMs, absoluteTtlMs, endsBy = null, parent = null, ...rights }: TokenTerms,
  createdAt: number,
): TokenRecord {
  const { scope = null, rate = null, uses = null, name = null } = rights
  const latestEnd = Math.min(endsBy ?? Infinity, parent?.absoluteExpiresAt ?? Infinity)
  const absoluteExpiresAt = Math.min(createdAt + (kind === 'sliding' ? absoluteTtlMs : ttlMs), latestEnd)
  const id = drawTokenId(owner?.id ?? null, createdAt)
  return {
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
    scope,
    paused: false,
    rate,
    usesLeft: uses,
    name,
    parent: parent && { id: parent.id, scope: parent.scope, name: parent.name },
    authority: owner?.authority ?? noAuthority,
  }
}

/** When the user logged in for this token, at most a second too early; null if no log-in led to it. */
export function provedAt({ id, loginId, createdAt }: TokenRecord): number | null {
  if (loginId === null) return null
  return loginId === id ? createdAt : issuedAtOf(loginId)
}
