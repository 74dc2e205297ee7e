// How many tokens the database holds, as far as this process knows, for the limits on them: a count at the start, its
// own changes, and from time to time a recount, which includes the changes of other processes. Hides that a large table in
// PostgreSQL is not read as a whole.
import type { TokenKind, TokenRecord } from '../tokenPort.ts'
import type { Connection } from './driver.ts'
import type { SqlDialect } from './migrations.ts'
import { raw, sql } from './statement.ts'

const maxReadBytes = 32 * 2 ** 20 // of a table in PostgreSQL, about 100,000 tokens; a count of them takes some 50 ms
const recountMs = 60_000 // minimum time between two recounts

export interface TokenCounts {
  all(): number
  guests(): number
  add(token: Pick<TokenRecord, 'userId'>): void
  remove(tokens: Pick<TokenRecord, 'userId'>[]): void
  recount(db: Connection, dialect: SqlDialect): Promise<void>
  /** Whether it is time for a recount. Returns true once, then not before `recountMs` have passed. */
  isDue(now: number): boolean
}

export function createTokenCounts(): TokenCounts {
  let counts = { all: 0, guests: 0 }
  let countedAt: number | null = null

  return {
    all: () => counts.all,
    guests: () => counts.guests,

    add({ userId }) {
      counts.all++
      if (userId === null) counts.guests++
    },

    remove(tokens) {
      counts.all -= tokens.length
      counts.guests -= tokens.filter(({ userId }) => userId === null).length
    },

    async recount(db, dialect) {
      const kinds = await countKinds(db, dialect)
      const sum = (numbers: number[]) => numbers.reduce((total, n) => total + n, 0)
      counts = { all: sum(kinds.map(({ n }) => n)), guests: sum(kinds.map(({ guests }) => guests)) }
    },

    isDue(now) {
      if (countedAt !== null && Math.abs(now - countedAt) < recountMs) return false
      countedAt = now
      return true
    },
  }
}

export interface KindCount {
  kind: TokenKind
  n: number
  /** How many of them are of guests. */
  guests: number
}

/**
 * The number of tokens of each kind, including dead ones that have not been swept yet. In PostgreSQL it is an estimate if the
 * table is larger than `maxReadBytes`: that much of it is read, in pages chosen at random.
 */
export async function countKinds(db: Connection, dialect: SqlDialect): Promise<KindCount[]> {
  const part = dialect === 'postgres' ? await readablePart(db) : 1
  const sample = part < 1 ? sql`tablesample system (cast(${100 * part} as real))` : raw('')
  const rows = await db.query<KindCount>(sql`select kind, count(*) as n, count(*) - count(user_id) as guests
    from latchkey_tokens ${sample} where end_reason is null group by kind`)
  const whole = (counted: number) => Math.round(Number(counted) / part)
  return rows.map(({ kind, n, guests }) => ({ kind, n: whole(n), guests: whole(guests) }))
}

async function readablePart(db: Connection): Promise<number> {
  const [row] = await db.query<{ bytes: number }>(sql`select pg_relation_size('latchkey_tokens') as bytes`)
  return Math.min(1, maxReadBytes / Math.max(1, Number(row?.bytes)))
}
