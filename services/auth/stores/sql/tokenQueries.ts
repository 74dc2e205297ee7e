// The parts that the token statements have in common: columns, batches of refs, and which tokens are acceptable.

import { unpackedRate } from '../rates.ts'
import type { EndReason, Found, Parent, TokenRecord, TokenRef } from '../tokenPort.ts'
import { ownersAuthority, parseAuthority } from './authorities.ts'
import type { Connection } from './driver.ts'
import type { SqlDialect } from './migrations.ts'
import { raw, type Sql, sql } from './statement.ts'

export const rememberedMs = 10 * 60_000 // lifetime of the tombstone that an ended token leaves, so that it can be explained

// When the parent ends, its scope and its name, each on a line. It may be a tombstone already.
const parentColumn = `parent_id as "parentId", case when parent_id is not null then (
   select abs(parent.expires_at) || '\n' || coalesce(parent.scope, '') || '\n' || coalesce(parent.name, '')
   from latchkey_tokens as parent where parent.id = latchkey_tokens.parent_id) end as parent`

const columns = `id, kind, purpose, user_id as "userId", username, credential_version as "credentialVersion",
   created_at as "createdAt", login_id as "loginId", last_used_at as "lastUsedAt", abs(expires_at) as "expiresAt",
   absolute_expires_at as "absoluteExpiresAt", ttl_ms as "ttlMs", refresh_count as "refreshCount",
   scope, paused, rate, uses_left as "usesLeft", name, ${parentColumn}`

/** What makes a `TokenRow`. The table must not have an alias. */
export const recordColumns = sql`${raw(columns)}, ${ownersAuthority} as authority`

/** The same, if the statement has already read the authority. */
export const recordColumnsWith = (authority: string): Sql => raw(`${columns}, ${authority} as authority`)

export type TokenRow = Omit<TokenRecord, 'paused' | 'rate' | 'parent' | 'authority'> & {
  paused: number
  rate: string | null
  parentId: string | null
  /** Null without a parent, and if that is gone. */
  parent: string | null
  authority: string | null
}

/** A touch returns it. */
export type Row = TokenRow & { hash: string }

// The `expires_at` of a token that a call has found to be expired is negative, so that no other call admits the token, however
// late it arrives.

/** Whether a selected token has expired, and is only selected so that this becomes final. */
export const hasExpired = ({ expiresAt }: Pick<TokenRecord, 'expiresAt'>, now: number): boolean => expiresAt <= now

/** The end of a sliding token after a use at `now`. */
export const extendedTo = (now: number): Sql =>
  sql`case when ttl_ms + ${now} < expires_at then expires_at
    when ttl_ms + ${now} < absolute_expires_at then ttl_ms + ${now} else absolute_expires_at end`

/**
 * Added to `paused` of a token that a program holds; a pause adds 1. It makes an earlier version refuse the token, because that
 * version knows neither its parent nor that its scope restricts its roles.
 */
export const programMark = 2

export const isPausedRow = ({ paused }: Pick<TokenRow, 'paused'>): boolean => paused % 2 === 1

export function recordOf({ parentId, ...row }: TokenRow): TokenRecord {
  const rate = row.rate === null ? null : unpackedRate(row.rate)
  const parent = parentId === null ? null : parentOf(parentId, row.parent)
  return { ...row, paused: isPausedRow(row), rate, parent, authority: parseAuthority(row.authority) }
}

function parentOf(id: string, text: string | null): Parent {
  if (text === null) return { id, scope: '', name: null } // no rights are left
  const [, scope = '', name = ''] = text.split('\n')
  return { id, scope: scope === '' ? null : scope, name: name === '' ? null : name }
}

/** The id of the parent if it has expired, and was only selected so that this becomes final; otherwise null. */
export function expiredParentOf({ parentId, parent }: TokenRow, now: number): string | null {
  return parent !== null && Number(parent.split('\n', 1)[0]) <= now ? parentId : null
}

/**
 * Whether a user id or username can be in the database: PostgreSQL rejects U+0000, and drivers send a lone surrogate as
 * U+FFFD.
 */
export function isStorable(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed()
}

/** A ref and how often it occurs in a batch. */
export type Mention = TokenRef & { times: number }

export function mentionsOf(refs: TokenRef[]): Mention[] {
  const mentions = new Map<string, Mention>()
  for (const { id, hash } of refs) {
    const known = mentions.get(id + hash)
    if (known) known.times++
    else mentions.set(id + hash, { id, hash, times: 1 })
  }
  return [...mentions.values()]
}

/** What a touch asks for. */
export interface Touch {
  refs: TokenRef[]
  mentions: Mention[]
  now: number
  purpose: string | null
  /** A further condition on the token, which it calls `t`. */
  only: Sql
  /** Whether the limits of tokens and their users apply. */
  isLimited: boolean
}

/** The refs as a table `asked (id, hash, times)`. The SQL and the number of its parameters are the same for any batch. */
export function askedFor(mentions: Mention[], dialect: SqlDialect): Sql {
  if (dialect === 'sqlite') {
    const json = JSON.stringify(mentions)
    return sql`select value ->> 'id' as id, value ->> 'hash' as hash, value ->> 'times' as times from json_each(${json})`
  }
  // Arrays instead of JSON: PostgreSQL knows their length, so it does not scan the whole table for a few refs.
  const ids = mentions.map(({ id }) => id)
  const hashes = mentions.map(({ hash }) => hash)
  const times = mentions.map(({ times }) => times)
  return sql`select id, hash, times
    from unnest(${ids}::text[], ${hashes}::text[], ${times}::bigint[]) as asked(id, hash, times)`
}

/**
 * The from and where clauses that select the acceptable tokens, from the tables `t` (tokens), `f` (floors) and `asked`, and
 * those that have expired unnoticed, or whose parent has. `only` is a further condition on the acceptable tokens, and `joined` a
 * further table.
 */
export function admissible(now: number, purpose: string | null, only: Sql, joined = raw('')): Sql {
  const isMeant = purpose === null ? sql`t.purpose is null` : sql`t.purpose = ${purpose}`
  return sql`latchkey_tokens as t join asked on asked.id = t.id and asked.hash = t.hash
    left join latchkey_floors as f on f.user_id = t.user_id ${joined}
    where t.end_reason is null and t.expires_at > 0
      and (t.expires_at <= ${now} or (${isMeant} and t.credential_version >= coalesce(f.version, 0)
        and t.paused % 2 = 0 and coalesce(f.paused, 0) = 0
        and (t.parent_id is null or ${hasParent(raw('t'), sql`(parent.paused % 2 = 0 or parent.expires_at <= ${now})`)}) and ${only}))`
}

/** Whether the parent has not ended, or has only expired unnoticed. `only` is a further condition on the `parent`. */
export const hasParent = (child: Sql, only: Sql): Sql =>
  sql`exists (select 1 from latchkey_tokens as parent where parent.id = ${child}.parent_id and parent.end_reason is null
    and parent.expires_at > 0 and ${only} and parent.credential_version >= coalesce(
      (select version from latchkey_floors as floor where floor.user_id = parent.user_id), 0))`

/** The condition that a row has no parent, or one that is live at `now`. */
export const hasLiveParent = (now: number): Sql =>
  sql`(parent_id is null or ${hasParent(raw('latchkey_tokens'), sql`parent.expires_at > ${now}`)})`

/** Makes the end of those parents final that have expired, so that no late call accepts what was delegated from them. */
export async function noticeParents(parentIds: string[], now: number, db: Connection): Promise<void> {
  for (const id of new Set(parentIds)) {
    await db.change(sql`update latchkey_tokens set expires_at = -expires_at
      where id = ${id} and end_reason is null and expires_at > 0 and expires_at <= ${now}`)
  }
}

export function isOneOf(ids: string[], dialect: SqlDialect): Sql {
  return dialect === 'sqlite'
    ? sql`id in (select value from json_each(${JSON.stringify(ids)}))`
    : sql`id = any(${ids}::text[])`
}

/** How long a touch waits for locks. */
export const lockWaits = {
  /** Long compared to the commits of other touches, even if many wait for the same token, and much shorter than a deadline. */
  maxMs: 300,
  secondMs: 150,
  /** For what was locked the last time. */
  stuckMs: 30,
  /** How many tokens, and how many users, may count as locked the last time. */
  maxStuck: 1000,
}

/** Holds in PostgreSQL for the rest of the transaction, which may be one statement. Is always true. */
export const waitsAtMost = (ms: number): Sql => sql`(select set_config('lock_timeout', ${String(ms)}, true)) <> ''`

export const anyKind = raw('true')

/** Narrows `admissible` to sessions, if the purpose is null. */
export const isSessionOfT = raw(`t.kind = 'sliding' and t.user_id is not null`)

export async function floorOf(userId: string, db: Connection): Promise<number> {
  const [floor] = await db.query<{ version: number }>(
    sql`select version from latchkey_floors where user_id = ${userId}`,
  )
  return floor?.version ?? 0
}

/** Serialises the transactions that issue or revoke tokens of a user. SQLite allows only one writer anyway. */
export async function lockUser(userId: string, tx: Connection, dialect: SqlDialect): Promise<void> {
  if (dialect === 'postgres') await tx.query(sql`select pg_advisory_xact_lock(hashtextextended(${userId}, 0))`)
}

/** What the limits of a token, its parent and its user said about one touch. */
export interface Outcome {
  /** 0 if they allowed it, the milliseconds to wait, or null if no use was left. */
  retryAfterMs: number | null
  /** The uses that were left to the token after it; null for any number. */
  usesLeft: number | null
}

/** What they said in a batch. */
export interface Taken {
  /** How often they allowed it. */
  times: number
  /** One for each ref of the token. */
  outcomes: Outcome[]
}

const unlimited: Outcome = { retryAfterMs: 0, usesLeft: null }

/**
 * One result per ref, as if the refs had been touched one after another. `rows` hold the state after the last touch; `taken` has
 * the tokens with limits, by id and hash.
 */
export function inOrder(
  refs: TokenRef[],
  mentions: Mention[],
  rows: (TokenRow & { hash: string })[],
  taken: Map<string, Taken>,
): Found[] {
  const found = new Map(rows.map(({ hash, ...row }) => [row.id + hash, recordOf(row)]))
  const left = new Map(mentions.map(({ id, hash, times }) => [id + hash, taken.get(id + hash)?.times ?? times]))
  const outcomes = new Map([...taken].map(([key, { outcomes }]) => [key, outcomes.values()]))
  return refs.map(({ id, hash }) => {
    const token = found.get(id + hash)
    if (token === undefined) return null
    const { retryAfterMs, usesLeft } = outcomes.get(id + hash)?.next().value ?? unlimited
    if (retryAfterMs === null) return null
    if (retryAfterMs > 0) return { limited: true, retryAfterMs }
    const after = (left.get(id + hash) as number) - 1
    left.set(id + hash, after)
    if (token.kind === 'single-use') found.delete(id + hash)
    return token.kind === 'single-use' ? token : { ...token, refreshCount: token.refreshCount - after, usesLeft }
  })
}

/** Turns the selected token into a tombstone. Returns the token, or null if none was selected. */
export async function endToken(
  which: Sql,
  reason: EndReason,
  now: number,
  db: Connection,
): Promise<TokenRecord | null> {
  const [row] = await db.query<TokenRow>(sql`update latchkey_tokens
    set end_reason = ${reason}, ended_at = ${now}, sweep_at = ${now + rememberedMs}
    where end_reason is null and ${which} returning ${recordColumns}`)
  return row === undefined ? null : recordOf(row)
}
