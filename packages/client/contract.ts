// The wire contract with Auth: paths, request, verdict, and a parser that checks every member of the response.

export const validateTokenPath = '/validateToken'

/** On Auth's internal listener: 200 if it can give verdicts, 503 if its token store does not answer. */
export const readyPath = '/ready'

/** Maximum number of tokens in one call, including held ones. */
export const maxTokensPerCall = 256

/**
 * Maximum size of a verdict in bytes; a response with n verdicts may be n + 1 times that size. A username takes at most 640 bytes,
 * the roles and the scope about 300 each, the name of a key and the actor 200 each.
 */
export const maxVerdictBytes = 2048

export const tokenKinds = ['sliding', 'fixed', 'single-use'] as const
export type TokenKind = (typeof tokenKinds)[number]

/** Maximum number of a user's roles, and of the names in a scope. */
export const maxNames = 16
export const roleFormat = /^[a-z0-9][a-z0-9:._-]{0,63}$/
/** One name of a scope (RFC 6749, section 3.3). */
export const scopeNameFormat = /^[\x21\x23-\x5b\x5d-\x7e]+$/
/** Maximum length of the name of an API key, in code points. */
const maxKeyNameLength = 64

/**
 * Either `token`, answered with a verdict, or `tokens`, answered with `{verdicts}` in the same order. With `held`, beside `tokens`
 * or alone, the answer is `{verdicts, held}`.
 */
export interface ValidateTokenRequest {
  token?: string | undefined
  tokens?: string[] | undefined
  /** Tokens of open connections. They are looked at: nothing is extended or consumed. */
  held?: string[] | undefined
  /** Only tokens of this purpose are admitted; if it is missing, only tokens without a purpose. */
  purpose?: string | undefined
  /** If false, nothing is extended or consumed. True by default. */
  touch?: boolean | undefined
}

/** Instants are epoch milliseconds; `username` and `userId` are null for a guest. */
export interface Admission {
  authenticated: true
  tokenId: string
  kind: TokenKind
  username: string | null
  userId: string | null
  createdAt: number
  expiresAt: number
  absoluteExpiresAt: number
  /** How often the token has been validated, including this time. */
  refreshCount: number
  /** The roles of the user. Empty for a guest, and if Auth is too old to send it. */
  roles: string[]
  /**
   * The scope of the token, names separated by spaces (RFC 6749, section 3.3). Null if the token is restricted by nothing but the
   * user's roles, as sessions are, and if Auth is too old to send it. Empty if the token has no rights at all: it passes no rule
   * for a scope.
   */
  scope: string | null
  /** The name of the API key behind the token. Null for a session or an unnamed token, and if Auth is too old to send it. */
  keyName: string | null
  /**
   * Who acts for the user, if the token was delegated (RFC 8693, section 4.1): `sub` is the name of the delegated token, or its id.
   * Null for every other token, and if Auth is too old to send it.
   */
  actor: { sub: string } | null
}

/** Unknown, expired and revoked tokens look the same. */
export interface Rejection {
  authenticated: false
  limited?: undefined
}

/** The token is valid, but its limits or those of its user allow no request now. Nothing was extended or consumed. */
export interface Limitation {
  authenticated: false
  limited: true
  /** After so many milliseconds they allow one, if no other request comes first. */
  retryAfterMs: number
}

export type Verdict = Admission | Rejection | Limitation

/** An Auth of an earlier version does not send all of these. */
type Later = 'roles' | 'scope' | 'keyName' | 'actor'
type SentVerdict = (Omit<Admission, Later> & Partial<Pick<Admission, Later>>) | Rejection | Limitation

/** Auth could not ask about this token, although it could about others of the call. */
export interface NoVerdict {
  authenticated?: undefined
  unavailable: true
}

export interface Verdicts {
  verdicts: (Verdict | NoVerdict)[]
  /** Null if Auth could not look at the held tokens. */
  held: (Verdict | NoVerdict)[] | null
}

/** Throws unless `text` holds exactly `count` well-formed verdicts, and `heldCount` for held tokens. */
export function parseVerdicts(text: string, count: number, heldCount: number): Verdicts {
  const { verdicts, held } = JSON.parse(text) as { verdicts?: unknown; held?: unknown }
  return {
    verdicts: verdictsOf(verdicts, count),
    held: heldCount === 0 || held === null ? null : verdictsOf(held, heldCount),
  }
}

function verdictsOf(verdicts: unknown, count: number): (Verdict | NoVerdict)[] {
  if (!Array.isArray(verdicts) || verdicts.length !== count) throw new Error(`expected ${count} verdicts`)
  for (const verdict of verdicts) {
    if (!isVerdict(verdict)) throw new Error('a verdict is not well-formed')
    if (!verdict.authenticated) continue
    verdict.roles ??= []
    verdict.scope ??= null
    verdict.keyName ??= null
    verdict.actor ??= null
  }
  return verdicts
}

function isVerdict(value: unknown): value is SentVerdict | NoVerdict {
  if (typeof value !== 'object' || value === null) return false
  const verdict = value as Record<keyof Admission | keyof Limitation | 'unavailable', unknown>
  if (verdict.authenticated === false) {
    return verdict.limited !== true || (Number.isSafeInteger(verdict.retryAfterMs) && Number(verdict.retryAfterMs) > 0)
  }
  if (verdict.authenticated === undefined) return verdict.unavailable === true
  return (
    verdict.authenticated === true &&
    typeof verdict.tokenId === 'string' &&
    tokenKinds.includes(verdict.kind as TokenKind) &&
    isNullOrString(verdict.username) &&
    isNullOrString(verdict.userId) &&
    Number.isSafeInteger(verdict.createdAt) &&
    Number.isSafeInteger(verdict.expiresAt) &&
    Number.isSafeInteger(verdict.absoluteExpiresAt) &&
    Number.isSafeInteger(verdict.refreshCount) &&
    (verdict.roles === undefined || isListOfStrings(verdict.roles)) &&
    (verdict.scope === undefined || isNullOrString(verdict.scope)) &&
    (verdict.keyName === undefined || isNullOrKeyName(verdict.keyName)) &&
    (verdict.actor === undefined || isNullOrActor(verdict.actor))
  )
}

function isNullOrKeyName(value: unknown): boolean {
  if (typeof value !== 'string') return value === null
  // `length` counts some code points twice, so it is only looked at to avoid spreading most names.
  return value.length <= maxKeyNameLength || [...value].length <= maxKeyNameLength
}

function isNullOrActor(value: unknown): boolean {
  if (typeof value !== 'object') return false
  return value === null || typeof (value as { sub?: unknown }).sub === 'string'
}

function isListOfStrings(value: unknown): boolean {
  return Array.isArray(value) && value.every(one => typeof one === 'string')
}

function isNullOrString(value: unknown): boolean {
  return value === null || typeof value === 'string'
}
