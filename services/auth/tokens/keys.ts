// API keys and delegated tokens: the tokens that programs hold for a user. Hides how long a key without an expiry lives, and what a
// delegated token may be given at most.
import {
  isApiKey,
  isHeldByProgram,
  isSession,
  maxNameLength,
  programLimit,
  type Rate,
  type TokenChanges,
  type TokenRecord,
} from '../stores/tokenPort.ts'
import { isTokenId } from './format.ts'
import { canaryPurpose } from './refusals.ts'
import type { IssuedToken, TokenOwner, Tokens } from './tokens.ts'

export { maxNameLength }

export interface KeyTerms {
  name: string
  /** Null: whatever the user may do. */
  scope: string | null
  /** Epoch milliseconds, in the future; null for never. */
  expiresAt: number | null
  rate: Rate | null
  /** A key that opens nothing, to be left where only a thief looks. Each use of it is reported. */
  isCanary: boolean
}

/** What is missing is what the parent has. */
export interface DelegationTerms {
  scope?: string | null | undefined
  /** An hour by default, or what the parent has left. */
  ttlMs?: number | undefined
  uses?: number | null | undefined
  rate?: Rate | null | undefined
  name?: string | null | undefined
}

/** What a delegated token would have more of than its parent, and how much that one has: for `ttl` in milliseconds. */
export type Excess =
  | { exceeds: 'scope'; max: string }
  | { exceeds: 'ttl' | 'uses'; max: number }
  | { exceeds: 'rate'; max: Rate }

export interface Keys {
  /** How many keys a user may have. */
  maxKeys: number

  /** `too_many`: the user has `maxKeys` keys. Null if the sessions of the user have just been revoked. */
  create(owner: TokenOwner, terms: KeyTerms): Promise<IssuedToken | 'too_many' | null>

  /** The user's keys and delegated tokens, oldest first. */
  list(userId: string): Promise<TokenRecord[]>

  /** A live key or delegated token of this user, or of any user if that is null. Null if there is no such key. */
  find(id: string, userId: string | null): Promise<TokenRecord | null>

  /** Changes a live key or delegated token of this user, or of any user if that is null. Null if there is no such key. */
  change(id: string, userId: string | null, changes: TokenChanges): Promise<TokenRecord | null>

  /** Ends it, and what was delegated from it. False if there is no such key. */
  revoke(id: string, userId: string | null): Promise<boolean>

  /**
   * The live session or key of this secret, whose use this is: a session is extended. Null for every other token, which stays as it
   * was, and so for delegated ones. Rejects with `too_many_requests` like `Tokens.validate`.
   */
  useParent(secret: string): Promise<TokenRecord | null>

  /** Issues a token that can never do more than `parent`, and ends with it. Null if the parent has just ended. */
  delegate(parent: TokenRecord, terms: DelegationTerms): Promise<IssuedToken | Excess | null>
}

export interface KeysOptions {
  tokens: Pick<Tokens, 'issue' | 'find' | 'change' | 'revokeById' | 'listByUser' | 'validate' | 'useSession'>
  /** Live tokens per user. */
  perUser: number
  now: () => number
}

const foreverMs = 100 * 365 * 86_400_000 // stores need an expiry
const defaultTtlMs = 3_600_000

export function createKeys({ tokens, perUser, now }: KeysOptions): Keys {
  const maxKeys = Math.ceil(programLimit(perUser) / 2) // the other half is for delegated tokens

  async function list(userId: string): Promise<TokenRecord[]> {
    return (await tokens.listByUser(userId)).filter(isHeldByProgram)
  }

  async function find(id: string, userId: string | null): Promise<TokenRecord | null> {
    if (userId !== null) return (await list(userId)).find(token => token.id === id) ?? null
    const token = isTokenId(id) ? await tokens.find(id) : null
    return token !== null && isHeldByProgram(token) ? token : null
  }

  return {
    maxKeys,
    list,
    find,

    async create(owner, { name, scope, expiresAt, rate, isCanary }) {
      const keys = (await list(owner.id)).filter(isApiKey)
      if (keys.length >= maxKeys) return 'too_many'
      const lifetime = { ttlMs: foreverMs, absoluteTtlMs: foreverMs, endsBy: expiresAt }
      const purpose = isCanary ? canaryPurpose : null
      return tokens.issue({ kind: 'fixed', purpose, owner, login: null, ...lifetime, name, scope, rate })
    },

    async change(id, userId, changes) {
      const key = await find(id, userId)
      return key && tokens.change(key.id, changes)
    },

    async revoke(id, userId) {
      const key = await find(id, userId)
      return key !== null && tokens.revokeById(key.id, null)
    },

    async useParent(secret) {
      const token = await tokens.validate(secret, { purpose: null, touch: false })
      if (token === null) return null
      if (isSession(token)) return tokens.useSession(secret)
      return isApiKey(token) ? tokens.validate(secret, { purpose: null, touch: true }) : null
    },

    async delegate(parent, terms) {
      const leftMs = parent.absoluteExpiresAt - now()
      const { scope = parent.scope, uses = parent.usesLeft, rate = parent.rate, name = null } = terms
      const ttlMs = terms.ttlMs ?? Math.min(defaultTtlMs, leftMs)
      const excess = excessOver(parent, leftMs, { scope, ttlMs, uses, rate })
      if (excess !== null) return excess
      const owner = ownerOf(parent)
      const lifetime = { ttlMs, absoluteTtlMs: ttlMs }
      const rights = { scope, rate, uses, name, parent }
      return tokens.issue({ kind: 'fixed', purpose: null, owner, login: null, ...lifetime, ...rights })
    },
  }
}

/** The user of a token that has one. */
export function ownerOf({ userId, username, credentialVersion, authority }: TokenRecord): TokenOwner {
  return { id: userId as string, username: username as string, credentialVersion, authority }
}

export function isCanary({ purpose }: TokenRecord): boolean {
  return purpose === canaryPurpose
}

/** When the key ends; null for never. */
export function keyEndOf({ createdAt, absoluteExpiresAt }: TokenRecord): number | null {
  return absoluteExpiresAt - createdAt >= foreverMs ? null : absoluteExpiresAt
}

interface Asked {
  scope: string | null
  ttlMs: number
  uses: number | null
  rate: Rate | null
}

function excessOver(parent: TokenRecord, leftMs: number, { scope, ttlMs, uses, rate }: Asked): Excess | null {
  if (!isWithin(scope, parent.scope)) return { exceeds: 'scope', max: parent.scope as string }
  if (ttlMs > leftMs) return { exceeds: 'ttl', max: leftMs }
  const { usesLeft, rate: maxRate } = parent
  if (usesLeft !== null && (uses === null || uses > usesLeft)) return { exceeds: 'uses', max: usesLeft }
  if (maxRate === null) return null
  const isFaster = rate === null || rate.perMinute > maxRate.perMinute || rate.burst > maxRate.burst
  return isFaster ? { exceeds: 'rate', max: maxRate } : null
}

/** Whether every name of `scope` is in `whole`. Null has every name. */
function isWithin(scope: string | null, whole: string | null): boolean {
  if (whole === null) return true
  if (scope === null) return false
  const names = whole.split(' ')
  return scope.split(' ').every(name => names.includes(name))
}
