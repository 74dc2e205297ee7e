// Revokes or pauses tokens, together with the other tokens that came from the same log-in. Hides the order of the steps, in which the
// client's own token is deleted after its relatives, so that the client can try again if a step fails.
import { isSession, onlyOne, type TokenRecord, type TokenRef, type TokenStore } from '../stores/tokenPort.ts'
import type { TokenFormat } from './format.ts'

export interface RevocationOptions {
  store: TokenStore
  format: TokenFormat
  now: () => number
  onRevoked: (token: TokenRecord) => void
  onPaused: (token: TokenRecord) => void
}

export interface Revocation {
  /** See `Tokens.revokeSession`. */
  revokeSession(secret: string): Promise<boolean>
  /** Revokes the token of this secret, even of an earlier secret; does nothing if there is no such token. */
  revoke(secret: string): Promise<void>
  /** Revokes a live token and every other token of its log-in. */
  revokeToken(token: TokenRecord): Promise<void>
  /** Reports that `ended` has been deleted, and revokes the other tokens of its log-in. False if `ended` is null. */
  revokeRelativesOf(ended: TokenRecord | null): Promise<boolean>
  /** Reports that `paused` has been paused, and pauses the other tokens of its log-in. */
  pauseRelativesOf(paused: TokenRecord): Promise<void>
}

export function createRevocation({ store, format, now, onRevoked, onPaused }: RevocationOptions): Revocation {
  /** The other live tokens of the same log-in. */
  async function relativesOf({ id, userId, loginId }: TokenRecord): Promise<TokenRecord[]> {
    const own = await store.findByUser(userId as string, now())
    return own.filter(other => other.loginId === loginId && other.id !== id)
  }

  /** Repeats until no token of the same log-in is left, because one may have been exchanged for another meanwhile. */
  async function revokeRelatives(token: TokenRecord): Promise<void> {
    for (;;) {
      const relatives = await relativesOf(token)
      if (relatives.length === 0) return
      for (const relative of relatives) {
        const ended = await store.deleteById(relative.id, now(), null)
        if (ended) onRevoked(ended)
      }
    }
  }

  /** Deletes the token of this secret, which may be its current secret or an earlier one. */
  async function remove(secret: string, ref: TokenRef): Promise<TokenRecord | null> {
    const at = now()
    // Try the two in this order, because a renewal in between turns a current secret into an earlier one, and never the
    // reverse. That renewal may be later than `at`.
    const current = await store.delete(ref, at)
    if (current) return current
    const renewed = await store.findRenewed(ref.id, format.lineageOf(secret), Number.MAX_SAFE_INTEGER)
    return renewed && store.deleteById(ref.id, at, null)
  }

  async function endLogin(token: TokenRecord, remove: () => Promise<TokenRecord | null>): Promise<void> {
    // Delete the token itself last: if the store fails before that, the client still holds it and can try again.
    if (hasRelatives(token)) await revokeRelatives(token)
    const ended = await remove()
    if (ended) onRevoked(ended)
    // Revoke the others once more: a refresh token could be exchanged for another session until it was deleted.
    if (hasRelatives(token) && !isSession(token)) await revokeRelatives(token)
  }

  async function revokeRelativesOf(ended: TokenRecord | null): Promise<boolean> {
    if (ended === null) return false
    onRevoked(ended)
    if (hasRelatives(ended)) await revokeRelatives(ended)
    return true
  }

  /** Repeats for the same reason. */
  async function pauseRelativesOf(token: TokenRecord): Promise<void> {
    onPaused(token)
    while (hasRelatives(token)) {
      const running = (await relativesOf(token)).filter(({ paused }) => !paused)
      if (running.length === 0) return
      for (const { id } of running) {
        const paused = await store.pause(id, now())
        if (paused) onPaused(paused)
      }
    }
  }

  return {
    revokeRelativesOf,
    pauseRelativesOf,

    revokeToken: token => endLogin(token, () => store.deleteById(token.id, now(), null)),

    async revoke(secret) {
      const ref = format.parse(secret)
      if (ref) await revokeRelativesOf(await remove(secret, ref))
    },

    async revokeSession(secret) {
      const ref = format.parse(secret)
      if (ref === null) return true
      let seen = onlyOne(await store.look([ref], now(), null))
      if (!seen) {
        const { reason } = await store.explain(ref, now(), null)
        // A pause must not undo the log-out when it ends. `live` is a token that was resumed since the look; `change` returns both.
        if (reason === 'paused' || reason === 'live') seen = await store.change(ref.id, {}, now())
        if (reason === 'renewed') await revokeRelativesOf(await remove(secret, ref))
        if (!seen) return reason !== 'other_purpose'
      }
      if (!isSession(seen)) return false
      await endLogin(seen, () => remove(secret, ref))
      return true
    },
  }
}

/** Whether other tokens may have come from the same log-in. False for a session that the log-in opened. */
function hasRelatives(token: TokenRecord): boolean {
  return token.loginId !== null && !(isSession(token) && token.loginId === token.id)
}
