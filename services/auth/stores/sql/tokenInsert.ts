// Inserts a token within the limits, in one transaction that also evicts the user's oldest session if necessary.
import { packedRate } from '../rates.ts'
import {
  guestLimit,
  type InsertOutcome,
  isHeldByProgram,
  programLimit,
  type TokenLimits,
  type TokenRecord,
  type TokenRef,
} from '../tokenPort.ts'
import { writeAuthority } from './authorities.ts'
import type { SqlDatabase } from './database.ts'
import type { Connection } from './driver.ts'
import { sql } from './statement.ts'
import type { TokenCounts } from './tokenCounts.ts'
import { endToken, floorOf, lockUser, programMark } from './tokenQueries.ts'

interface Insertion {
  ref: TokenRef
  token: TokenRecord
  limits: TokenLimits
  now: number
}

export function insertToken(
  { dialect, runConfirmed }: SqlDatabase,
  counts: TokenCounts,
  insertion: Insertion,
): Promise<InsertOutcome> {
  const { token, limits } = insertion
  const { userId } = token
  return runConfirmed(async session => {
    let evicted: TokenRecord | null = null
    const outcome = await session.transaction(async (tx): Promise<InsertOutcome> => {
      let room: Room = { evict: null }
      if (userId !== null) {
        // Without the lock, two concurrent log-ins could both take the last free place.
        await lockUser(userId, tx, dialect)
        const found = await roomFor(userId, insertion, tx)
        if (typeof found === 'string') return found
        room = found
      }
      if (counts.all() - (room.evict === null ? 0 : 1) >= limits.total) return 'full'
      if (userId === null && counts.guests() >= guestLimit(limits.total)) return 'full'
      if (!(await insertRow(insertion, tx))) return 'taken'
      if (userId !== null) await writeAuthority(userId, token.authority, tx)
      // Evict last, so that no session is lost to a token that is then refused.
      evicted = room.evict === null ? null : await endToken(sql`id = ${room.evict}`, 'evicted', insertion.now, tx)
      return 'inserted'
    })
    if (evicted !== null) counts.remove([evicted])
    if (outcome === 'inserted') counts.add(token)
    return outcome
  })
}

interface Room {
  /** The id of the token to evict, or null if there is a free place. */
  evict: string | null
}

async function roomFor(
  userId: string,
  { token, limits, now }: Insertion,
  tx: Connection,
): Promise<Room | 'ended' | 'full'> {
  const floor = await floorOf(userId, tx)
  if (token.credentialVersion < floor) return 'ended'
  const own = await tx.query<OwnToken>(sql`select id, kind, purpose, name, parent_id as "parentId"
    from latchkey_tokens where user_id = ${userId} and end_reason is null and expires_at > ${now}
      and credential_version >= ${floor} order by created_at, id`)
  const parentId = token.parent?.id ?? null
  if (parentId !== null && !own.some(({ id }) => id === parentId)) return 'ended'
  const held = own.filter(({ name, parentId }) => name !== null || parentId !== null)
  if (isHeldByProgram(token) && held.length >= programLimit(limits.perUser)) {
    return evicting(held.find(({ parentId }) => parentId !== null))
  }
  if (own.length < limits.perUser) return { evict: null }
  // Evicting the parent would end this token too.
  return evicting(own.find(({ id, kind, purpose }) => kind === 'sliding' && purpose === null && id !== parentId))
}

const evicting = (token: OwnToken | undefined): Room | 'full' => (token === undefined ? 'full' : { evict: token.id })

interface OwnToken extends Pick<TokenRecord, 'id' | 'kind' | 'purpose' | 'name'> {
  parentId: string | null
}

/** False if the id is taken. */
async function insertRow({ ref, token }: Insertion, tx: Connection): Promise<boolean> {
  const inserted = await tx.change(sql`insert into latchkey_tokens
    (id, hash, kind, purpose, user_id, username, credential_version, created_at, login_id, last_used_at,
      expires_at, absolute_expires_at, ttl_ms, refresh_count, scope, paused, rate, uses_left, name, parent_id, sweep_at)
    values (${ref.id}, ${ref.hash}, ${token.kind}, ${token.purpose}, ${token.userId}, ${token.username},
      ${token.credentialVersion}, ${token.createdAt}, ${token.loginId}, ${token.lastUsedAt},
      ${token.expiresAt}, ${token.absoluteExpiresAt}, ${token.ttlMs}, ${token.refreshCount}, ${token.scope},
      ${(token.paused ? 1 : 0) + (isHeldByProgram(token) ? programMark : 0)}, ${token.rate && packedRate(token.rate)}, ${token.usesLeft}, ${token.name},
      ${token.parent?.id ?? null}, ${token.expiresAt})
    on conflict (id) do nothing`)
  return inserted === 1
}
