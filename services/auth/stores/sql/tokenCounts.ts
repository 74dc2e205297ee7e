// How many tokens the database holds, as far as this process knows, for the limits on them: a count at the start, its
// own changes, and from time to time a recount, which includes the changes of other processes.
import type { TokenRecord } from '../ports.ts'
import type { Connection } from './driver.ts'
import { sql } from './statement.ts'

const recountMs = 60_000 // minimum time between two recounts

export interface TokenCounts {
  all(): number
  guests(): number
  add(token: Pick<TokenRecord, 'userId'>): void
  remove(tokens: Pick<TokenRecord, 'userId'>[]): void
  recount(db: Connection): Promise<void>
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

    async recount(db) {
      const [row] = await db.query<{ n: number; users: number }>(sql`select count(*) as n, count(user_id) as users
        from latchkey_tokens where end_reason is null`)
      const { n, users } = row ?? { n: 0, users: 0 }
      counts = { all: Number(n), guests: Number(n) - Number(users) }
    },

    isDue(now) {
      if (countedAt !== null && Math.abs(now - countedAt) < recountMs) return false
      countedAt = now
      return true
    },
  }
}
