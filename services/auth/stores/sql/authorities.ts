// What users may do, in the columns of the SQL stores. The table of users and the table of floors have the same three.
import { type Authority, noAuthority } from '../ports.ts'
import type { Connection } from './driver.ts'
import { raw, type Sql, sql } from './statement.ts'

export interface AuthorityColumns {
  authorityVersion: number
  /** Separated by spaces. */
  roles: string
  paused: number
}

export function columnsOf({ version, roles, paused }: Authority): AuthorityColumns {
  return { authorityVersion: version, roles: roles.join(' '), paused: paused ? 1 : 0 }
}

export function authorityOf({ authorityVersion: version, roles, paused }: AuthorityColumns): Authority {
  if (version === 0) return noAuthority
  return { version, roles: roles === '' ? [] : roles.split(' '), paused: paused === 1 }
}

const packed = (floor: string) => `${floor}.authority_version || ' ' || ${floor}.paused || ' ' || ${floor}.roles`

/** The authority in the row `f` of `latchkey_floors`, for `parseAuthority`. */
export const authorityOfF = raw(packed('f'))

/** The authority of the owner of each selected row of `latchkey_tokens`, for `parseAuthority`. */
export const ownersAuthority = raw(
  `(select ${packed('owner')} from latchkey_floors as owner where owner.user_id = latchkey_tokens.user_id)`,
)

export function parseAuthority(text: string | null): Authority {
  const [, version = 0, paused, roles = ''] = /^(\d+) (\d) (.*)$/.exec(text ?? '') ?? []
  return authorityOf({ authorityVersion: Number(version), roles, paused: Number(paused) })
}

/** Keeps what is stored if that has a higher version. */
export async function writeAuthority(userId: string, authority: Authority, db: Connection): Promise<void> {
  if (authority.version === 0) return
  const { authorityVersion, roles, paused } = columnsOf(authority)
  // Writes the row in any case, so that a sweep which has just found no token of the user does not delete it.
  await db.change(sql`insert into latchkey_floors as f (user_id, version, authority_version, roles, paused)
    values (${userId}, 0, ${authorityVersion}, ${roles}, ${paused})
    on conflict (user_id) do update set forget_at = 0, ${newer('authority_version')}, ${newer('roles')}, ${newer('paused')}`)
}

const newer = (column: string): Sql =>
  raw(
    `${column} = case when excluded.authority_version > f.authority_version then excluded.${column} else f.${column} end`,
  )
