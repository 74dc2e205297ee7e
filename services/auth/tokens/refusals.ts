// Finds out why a token was refused, for the operator, ends or pauses a session if one of its earlier secrets is used, and reports
// canaries. Runs after the verdict, so that no request waits for it.
import { type Explanation, isAdmitted, type TokenRef, type TokenStore } from '../stores/tokenPort.ts'
import { issuedAtOf, type TokenFormat } from './format.ts'
import type { Revocation } from './revocation.ts'

export type RefusalReason =
  | Exclude<Explanation['reason'], 'unknown' | 'ended' | 'live'>
  | 'never_existed'
  | 'all_sessions_revoked'
  | 'before_restart'
  | 'not_looked_up'
  | 'malformed'
  | 'not_a_session'
  | 'limited'

export type RefusalEvent =
  | { type: 'refused'; tokenId: string | null; reason: RefusalReason; secondsAgo?: number }
  /**
   * An earlier secret was used too long after the renewal to have been in flight: two clients hold it, and one is a thief. `action` is
   * what happened to the session.
   */
  | { type: 'renewed_secret_reused'; tokenId: string; userId: string | null; action: 'ended' | 'paused' }
  /** A canary was presented, so it has been found. */
  | { type: 'canary_used'; tokenId: string; userId: string | null; name: string | null; useCount: number }

/** A secret that was refused, and what it was presented as. */
export interface Presented {
  secret: string
  ref: TokenRef
  /** The required purpose. */
  purpose: string | null
  /** Whether only a session would have been accepted. */
  asSession: boolean
  /** If false, the secret was only looked up, which never stops a session. */
  isUse: boolean
  at: number
}

export interface RefusalsOptions {
  store: Pick<TokenStore, 'explain' | 'findRenewed' | 'deleteById' | 'pause' | 'touch'>
  format: TokenFormat
  /** When this process started, in epoch milliseconds. */
  startedAt: number
  relatives: Pick<Revocation, 'revokeRelativesOf' | 'pauseRelativesOf'>
  /** What to do with a session if one of its earlier secrets is used. */
  onReuse: OnReuse
  emit: (event: RefusalEvent) => void
}

/** Paused, the session waits for an operator to resume or end it. */
export type OnReuse = 'end' | 'pause'

/** No service admits a token of this purpose, so a canary is refused everywhere. */
export const canaryPurpose = 'tripwire'

const maxExplanations = 100 // under way at once, so that a scan for tokens does not make the store explain each guess
const reuseGraceMs = 10_000 // requests with the old secret may still be in flight this long after a renewal

/** The returned function never rejects, and need not be awaited. */
export function createRefusals({ store, format, startedAt, relatives, onReuse, emit }: RefusalsOptions) {
  let explanations = 0

  /**
   * See RFC 9700, section 4.14.2. The store ends or pauses the session once, however many requests bring the secret at the same
   * time, so it is reported once. If the store is unavailable, the next use of the secret tries again.
   */
  async function stopReused({ secret, ref: { id }, at }: Presented): Promise<void> {
    const session = await store.findRenewed(id, format.lineageOf(secret), at - reuseGraceMs)
    if (session === null) return
    const isPaused = onReuse === 'pause'
    const stopped = isPaused ? await store.pause(id, at) : await store.deleteById(id, at, session.userId)
    if (stopped === null) return
    emit({ type: 'renewed_secret_reused', tokenId: id, userId: stopped.userId, action: isPaused ? 'paused' : 'ended' })
    await (isPaused ? relatives.pauseRelativesOf(stopped) : relatives.revokeRelativesOf(stopped))
  }

  /** Counts the use of a canary. If the store is unavailable, the next use is reported. */
  async function reportCanary({ ref, at }: Presented): Promise<void> {
    const [canary = null] = await store.touch([ref], at, canaryPurpose).catch(() => [])
    if (canary === null || !isAdmitted(canary)) return
    const { id, userId, name, refreshCount } = canary
    emit({ type: 'canary_used', tokenId: id, userId, name, useCount: refreshCount })
  }

  return async function explain(presented: Presented): Promise<void> {
    const { ref, purpose, isUse, at } = presented
    const emitRefused = (reason: { reason: RefusalReason; secondsAgo?: number }) =>
      emit({ type: 'refused', tokenId: ref.id, ...reason })
    if (explanations >= maxExplanations) return emitRefused({ reason: 'not_looked_up' })
    explanations++
    const explanation = await store.explain(ref, at, purpose).catch(() => null)
    explanations--
    if (explanation === null) return emitRefused({ reason: 'not_looked_up' })
    emitRefused(reasonOf(presented, explanation, startedAt))
    if (isUse && explanation.reason === 'renewed') await stopReused(presented).catch(() => {})
    if (explanation.reason === 'other_purpose') await reportCanary(presented)
  }
}

function reasonOf(
  { ref, asSession, at }: Presented,
  explanation: Explanation,
  startedAt: number,
): { reason: RefusalReason; secondsAgo?: number } {
  if ('at' in explanation) {
    return { reason: explanation.reason, secondsAgo: Math.max(0, Math.round((at - explanation.at) / 1000)) }
  }
  const { reason } = explanation
  if (reason === 'other_purpose' || reason === 'paused' || reason === 'parent_ended') return { reason }
  if (reason === 'ended') return { reason: 'all_sessions_revoked' }
  if (reason === 'live' && asSession) return { reason: 'not_a_session' }
  // The id contains the second in which the token was issued.
  return { reason: issuedAtOf(ref.id) + 1000 <= startedAt ? 'before_restart' : 'never_existed' }
}
