// The tokens of the memory store by slot: reads, uses, ends and explains them. Hides which parts of a token are in the
// table, which are in its group, and which are in maps because few tokens have them.
import { type EndReason, type Explanation, type TokenRecord, type TokenRef, usualLogin } from '../ports.ts'
import type { Groups } from './groups.ts'
import { hashLength, none, placeOf, type TokenTable } from './table.ts'

/** The hash of the lineage, truncated like other hashes, and when the token was last renewed. */
export interface Renewal {
  lineage: string
  renewedAt: number
}

export interface TokenSlots {
  /** The slot of the token if it is live and has this purpose, otherwise `none`. */
  admit(ref: TokenRef, now: number, purpose: string | null): number
  /** The slot of the token with this id and hash, whether live or dead; `none` if there is no such token. */
  find(ref: TokenRef): number
  isDead(slot: number, now: number): boolean
  read(slot: number): TokenRecord
  add(ref: TokenRef, token: TokenRecord): void
  /** Counts a use, and extends a sliding token. */
  use(slot: number, now: number): void
  renew(slot: number, newHash: string, renewal: Renewal): void
  /** Null for a token that was never renewed. */
  renewalOf(slot: number): Renewal | null
  /** Removes a token and remembers why. */
  end(slot: number, reason: EndReason, now: number): TokenRecord
  /** Removes a token that is dead already. */
  removeDead(slot: number, shouldRemember: boolean): void
  explain(ref: TokenRef, now: number, purpose: string | null): Explanation
}

const maxRemembered = 10_000 // ended tokens, for `explain`; the oldest are dropped first

export function createTokenSlots(table: TokenTable, { groupOf, ...groups }: Groups): TokenSlots {
  const { pageOf } = table
  const ends = new Map<string, Explanation>()
  /** Slot -> `loginId`, for the few tokens whose value differs from `usualLogin`. */
  const logins = new Map<number, string | null>()
  /** Slot -> renewal, for renewed tokens only. */
  const renewals = new Map<number, Renewal>()

  const expiryOf = (slot: number): number => pageOf(slot).expiresAt[placeOf(slot)] as number
  const isDead = (slot: number, now: number): boolean => expiryOf(slot) <= now || groupOf(slot).ended

  function find({ id, hash }: TokenRef): number {
    const slot = table.find(id)
    return slot !== none && table.hasHash(slot, hash) ? slot : none
  }

  function read(slot: number): TokenRecord {
    const page = pageOf(slot)
    const i = placeOf(slot)
    const { user, kind, purpose, credentialVersion, ttlMs } = groupOf(slot)
    const id = table.idOf(slot)
    const ownLogin = logins.get(slot)
    return {
      id,
      kind,
      purpose,
      userId: user.id,
      username: user.username,
      credentialVersion,
      createdAt: page.createdAt[i] as number,
      loginId: ownLogin === undefined ? usualLogin({ id, kind, purpose, userId: user.id }) : ownLogin,
      lastUsedAt: page.lastUsedAt[i] as number,
      expiresAt: page.expiresAt[i] as number,
      absoluteExpiresAt: page.absoluteExpiresAt[i] as number,
      ttlMs,
      refreshCount: page.refreshCount[i] as number,
    }
  }

  function use(slot: number, now: number): void {
    const { expiresAt, absoluteExpiresAt, lastUsedAt, refreshCount } = pageOf(slot)
    const i = placeOf(slot)
    const { kind, ttlMs } = groupOf(slot)
    if (kind === 'sliding') expiresAt[i] = Math.min(now + ttlMs, absoluteExpiresAt[i] as number)
    lastUsedAt[i] = now
    refreshCount[i] = (refreshCount[i] as number) + 1
  }

  function remove(slot: number): void {
    groups.remove(slot)
    logins.delete(slot)
    renewals.delete(slot)
    table.free(slot)
  }

  function remember(id: string, why: Explanation): void {
    ends.delete(id)
    ends.set(id, why)
    if (ends.size > maxRemembered) ends.delete(ends.keys().next().value as string)
  }

  /** The cause of death of a token that has not been swept yet. */
  function causeOf(slot: number): Explanation {
    return groupOf(slot).ended ? { reason: 'ended' } : { reason: 'expired', at: expiryOf(slot) }
  }

  return {
    find,
    isDead,
    read,
    use,

    admit(ref, now, purpose) {
      const slot = find(ref)
      return slot !== none && !isDead(slot, now) && groupOf(slot).purpose === purpose ? slot : none
    },

    add(ref, token) {
      const slot = table.take(ref)
      const page = pageOf(slot)
      const i = placeOf(slot)
      page.createdAt[i] = token.createdAt
      page.lastUsedAt[i] = token.lastUsedAt
      page.expiresAt[i] = token.expiresAt
      page.absoluteExpiresAt[i] = token.absoluteExpiresAt
      page.refreshCount[i] = token.refreshCount
      if (token.loginId !== usualLogin(token)) logins.set(slot, token.loginId)
      groups.add(slot, token)
    },

    renew(slot, newHash, { lineage, renewedAt }) {
      table.setHash(slot, newHash)
      renewals.set(slot, { lineage: lineage.slice(0, hashLength), renewedAt })
    },

    renewalOf: slot => renewals.get(slot) ?? null,

    end(slot, reason, now) {
      const token = read(slot)
      remember(token.id, { reason, at: now })
      remove(slot)
      return token
    },

    removeDead(slot, shouldRemember) {
      if (shouldRemember) remember(table.idOf(slot), causeOf(slot))
      remove(slot)
    },

    explain(ref, now, purpose) {
      const slot = find(ref)
      if (slot === none) {
        const renewal = renewals.get(table.find(ref.id))
        return renewal ? { reason: 'renewed', at: renewal.renewedAt } : (ends.get(ref.id) ?? { reason: 'unknown' })
      }
      if (isDead(slot, now)) return causeOf(slot)
      return { reason: groupOf(slot).purpose === purpose ? 'live' : 'other_purpose' }
    },
  }
}
