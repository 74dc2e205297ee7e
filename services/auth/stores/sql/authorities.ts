// What users may do, in the columns of the SQL stores. The table of users and the table of floors have the same four.
import { packedRate, unpackedRate } from '../rates.ts'
import { type Authority, noAuthority } from '../tokenPort.ts'
import type { Connection } from './driver.ts'
import { raw, type Sql, sql } from './statement.ts'

export interface AuthorityColumns {
  authorityVersion: number
  /** Separated by spaces. */
  roles: string
  paused: number
  rate: string | null
}

export function columnsOf({ version, roles, paused, rate }: Authority): AuthorityColumns {
  return { authorityVersion: version, roles: roles.join(' '), paused: paused ? 1 : 0, rate: rate && packedRate(rate) }
}

export function authorityOf({ authorityVersion: version, roles, paused, rate }: AuthorityColumns): Authority {
  if (version === 0) return noAuthority
  const names = roles === '' ? [] : roles.split(' ')
  return { version, roles: names, paused: paused === 1, rate: rate === null ? null : unpackedRate(rate) }
}

const packed = (floor: string) =>
  `${floor}.authority_version || ' ' || ${floor}.paused || ' ' || ${floor}.roles || coalesce(';' || ${floor}.rate, '')`

/** The authority in the row `f` of `latchkey_floors`, for `parseAuthority`. */
export const authorityOfF = raw(packed('f'))

/** The authority of the owner of each selected row of `latchkey_tokens`, for `parseAuthority`. */
export const ownersAuthority = raw(
  `(select ${packed('owner')} from latchkey_floors as owner where owner.user_id = latchkey_tokens.user_id)`,
)

export function parseAuthority(text: string | null): Authority {
  const [, version = 0, paused, roles = '', rate = null] = /^(\d+) (\d) ([^;]*);?(.+)?$/.exec(text ?? '') ?? []
  return authorityOf({ authorityVersion: Number(version), roles, paused: Number(paused), rate })
}

/** Whether `parseAuthority` would find a rate. Each touch asks. */
export const hasRate = (text: string | null): boolean => text?.includes(';') ?? false

/** Keeps what is stored if that has a higher version. */
export async function writeAuthority(userId: string, authority: Authority, db: Connection): Promise<void> {
  if (authority.version === 0) return
  const { authorityVersion, roles, paused, rate } = columnsOf(authority)
  // Writes the row in any case, so that a sweep which has just found no token of the user does not delete it.
  await db.change(sql`insert into latchkey_floors as f (user_id, version, authority_version, roles, paused, rate)
    values (${userId}, 0, ${authorityVersion}, ${roles}, ${paused}, ${rate})
    on conflict (user_id) do update set forget_at = 0, ${newer('authority_version')}, ${newer('roles')}, ${newer('paused')},
      ${newer('rate')}, full_at_us = case when ${isNewer} and excluded.rate is distinct from f.rate then 0 else f.full_at_us end`)
}

const isNewer = raw('excluded.authority_version > f.authority_version')
const newer = (column: string): Sql =>
  sql`${raw(column)} = case when ${isNewer} then ${raw(`excluded.${column}`)} else ${raw(`f.${column}`)} end`
