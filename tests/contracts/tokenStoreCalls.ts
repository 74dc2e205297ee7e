// What the contract suites of a TokenStore share: tokens, and short forms of its calls.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import {
  noAuthority,
  type TokenLimits,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
  usualLogin,
} from '../../services/auth/stores/ports.ts'
import { drawTokenId } from '../../services/auth/tokens/format.ts'

export const minute = 60_000
// An hour ahead, so that the tokens stay in a store that also expires keys by its own clock.
export const start = Date.now() + 60 * minute

export const unlimited: TokenLimits = { perUser: Infinity, total: Infinity }
export function tokenStoreCalls(getStore: () => TokenStore) {
  // the lineage of all renewals except in the tests about lineages
  const lineage = Buffer.alloc(32, 7).toString('base64url')
  const newHash = () => Buffer.from(randomUUID().replaceAll('-', '').repeat(2), 'hex').toString('base64url')

  function newToken(members: Partial<TokenRecord> = {}): TokenRecord {
    const userId = members.userId === undefined ? randomUUID() : members.userId
    const token: TokenRecord = {
      id: drawTokenId(userId, start),
      kind: 'sliding',
      purpose: null,
      userId,
      username: userId === null ? null : 'somebody@example.com',
      credentialVersion: userId === null ? 0 : 1,
      createdAt: start,
      lastUsedAt: start,
      expiresAt: start + minute,
      absoluteExpiresAt: start + 10 * minute,
      ttlMs: minute,
      refreshCount: 0,
      loginId: null,
      scope: null,
      paused: false,
      authority: noAuthority,
      ...members,
    }
    if (members.loginId === undefined) token.loginId = usualLogin(token)
    return token
  }

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
