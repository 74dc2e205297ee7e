// Why the SQL store would refuse a token: what its row says, live or dead.
import type { EndReason, Explanation, TokenRef } from '../tokenPort.ts'
import { parseAuthority } from './authorities.ts'
import type { Connection } from './driver.ts'
import { sql } from './statement.ts'
import { hasLiveParent, isPausedRow, recordColumns, type TokenRow } from './tokenQueries.ts'

/** A token, and how it was renewed or ended. */
type ExplainedRow = TokenRow & {
  hash: string
  endReason: EndReason | 'expired' | 'ended' | null
  endedAt: number | null
  renewedAt: number | null
  isExpired: 0 | 1
  isOrphaned: 0 | 1
  parentPaused: number | null
  floor: number | null
}

export async function explain(
  db: Connection,
  { id, hash }: TokenRef,
  now: number,
  purpose: string | null,
): Promise<Explanation> {
  const [row] = await db.query<ExplainedRow>(sql`select ${recordColumns}, hash, end_reason as "endReason",
    ended_at as "endedAt", renewed_at as "renewedAt",
    case when expires_at <= ${now} then 1 else 0 end as "isExpired",
    case when ${hasLiveParent(now)} then 0 else 1 end as "isOrphaned",
    (select paused % 2 from latchkey_tokens as parent where parent.id = latchkey_tokens.parent_id) as "parentPaused",
    (select version from latchkey_floors where user_id = latchkey_tokens.user_id) as floor
    from latchkey_tokens where id = ${id}`)
  return row === undefined ? { reason: 'unknown' } : explanationOf(row, hash, purpose)
}

function explanationOf(row: ExplainedRow, hash: string, purpose: string | null): Explanation {
  if (row.endReason === 'ended') return { reason: 'ended' }
  if (row.endReason !== null) return { reason: row.endReason, at: row.endedAt as number }
  if (row.hash !== hash)
    return row.renewedAt === null ? { reason: 'unknown' } : { reason: 'renewed', at: row.renewedAt }
  if (row.credentialVersion < (row.floor ?? 0)) return { reason: 'ended' }
  if (row.isExpired === 1) return { reason: 'expired', at: row.expiresAt }
  if (row.isOrphaned === 1) return { reason: 'parent_ended' }
  if (row.purpose !== purpose) return { reason: 'other_purpose' }
  const isPaused = isPausedRow(row) || row.parentPaused === 1 || parseAuthority(row.authority).paused
  return { reason: isPaused ? 'paused' : 'live' }
}
