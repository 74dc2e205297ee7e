import { expect } from 'chai'
import type { TokenRecord, TokenRef, TokenStore } from '../../services/auth/stores/tokenPort.ts'
import { drawTokenId } from '../../services/auth/tokens/format.ts'
import { lineage, minute, newHash, newTokenAt, unlimited } from '../support/storeFixtures.ts'

// An hour ahead, so that the tokens stay in a store that also expires keys by its own clock.
export const start = Date.now() + 60 * minute

export { minute, unlimited }

export function tokenStoreCalls(getStore: () => TokenStore) {
  /** A session of a new user that lives for a minute, unless `members` say otherwise. */
  const newToken = (members: Partial<TokenRecord> = {}): TokenRecord =>
    newTokenAt(start, {
      expiresAt: start + minute,
      absoluteExpiresAt: start + 10 * minute,
      ttlMs: minute,
      ...members,
    }).token

  async function insert(token: TokenRecord, { limits = unlimited, now = start } = {}) {
    const ref = { id: token.id, hash: newHash() }
    return { ref, token, outcome: await getStore().insert(ref, token, limits, now) }
  }

  async function inserted(members: Partial<TokenRecord> = {}) {
    const { ref, token, outcome } = await insert(newToken(members))
    expect(outcome).to.equal('inserted')
    return { ref, token }
  }

  async function touch(ref: TokenRef, now: number, purpose: string | null = null): Promise<TokenRecord | null> {
    const [token] = await getStore().touch([ref], now, purpose)
    return token as TokenRecord | null
  }

  async function look(ref: TokenRef, now: number, purpose: string | null = null): Promise<TokenRecord | null> {
    const [token] = await getStore().look([ref], now, purpose)
    return token as TokenRecord | null
  }

  const unknownRef = () => ({ id: drawTokenId(null, start), hash: newHash() })

  /** Runs complete rounds of sweeping until a round removes nothing. */
  async function sweepAll(now: number): Promise<number> {
    let total = 0
    let slices = 0
    for (let removed = -1; removed !== 0; total += removed) {
      removed = 0
      for (let done = false; !done; ) {
        expect(++slices, 'slices of a sweep').to.be.below(10_000)
        const slice = await getStore().deleteExpired(now, 10)
        removed += slice.removed
        done = slice.done
      }
    }
    return total
  }

  return { lineage, newHash, newToken, insert, inserted, touch, look, unknownRef, sweepAll }
}
