// The wire contract between Business and Auth: path, request, verdict, and a parser that trusts nothing.

export const validateTokenPath = '/validateToken'

/** Of Auth's internal listener: 200 where it can give verdicts, 503 where its token store gives no answer. */
export const readyPath = '/ready'

/** Most tokens one call may ask about. */
export const maxTokensPerCall = 256

/** No verdict is larger, so no answer may be larger than this times its tokens. In bytes. */
export const maxVerdictBytes = 1024

export const tokenKinds = ['sliding', 'fixed', 'single-use'] as const
export type TokenKind = (typeof tokenKinds)[number]

/** One `token`, answered by a verdict, or `tokens`, answered by `{verdicts}` in the same order. */
export interface ValidateTokenRequest {
  token?: string | undefined
  tokens?: string[] | undefined
  /** Only tokens of this purpose are admitted; without it, only those that have none. */
  purpose?: string | undefined
  /** False looks: nothing is extended, nothing consumed. True by default. */
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
  /** How often the token has been validated, this time included. */
  refreshCount: number
}

/** Says nothing about why: unknown, expired and revoked look the same. */
export interface Refusal {
  authenticated: false
}

export type Verdict = Admission | Refusal

/** Throws unless `text` is an answer to exactly `count` tokens in which every member is what it must be. */
export function parseVerdicts(text: string, count: number): Verdict[] {
  const { verdicts } = JSON.parse(text) as { verdicts?: unknown }
  if (!Array.isArray(verdicts) || verdicts.length !== count) throw new Error(`expected ${count} verdicts`)
  for (const verdict of verdicts) {
    if (!isVerdict(verdict)) throw new Error('a verdict is not well-formed')
  }
  return verdicts
}

function isVerdict(value: unknown): value is Verdict {
  if (typeof value !== 'object' || value === null) return false
  const verdict = value as Record<keyof Admission, unknown>
  if (verdict.authenticated === false) return true
  return (
    verdict.authenticated === true &&
    typeof verdict.tokenId === 'string' &&
    tokenKinds.includes(verdict.kind as TokenKind) &&
    isNullOrString(verdict.username) &&
    isNullOrString(verdict.userId) &&
    Number.isSafeInteger(verdict.createdAt) &&
    Number.isSafeInteger(verdict.expiresAt) &&
    Number.isSafeInteger(verdict.absoluteExpiresAt) &&
    Number.isSafeInteger(verdict.refreshCount)
  )
}

function isNullOrString(value: unknown): boolean {
  return value === null || typeof value === 'string'
}
