// The content of a snapshot of the memory store. Hides its format:
//
//   first line   `latchkey tokens 6 LE`, the version and the byte order of all numbers; 5 lacks names and parents, 4 also the
//                limits, 3 also `scope` and `paused`
//   block        bytes of the head 4 | bytes of the rows 4 | head | rows
//   …
//   end          0 | 0 | HMAC-SHA256 of everything before these 32 bytes
//
// A head is JSON, padded with spaces to a multiple of 4 bytes; see `headSchema`. A row is a token in 13 words of 32 bits:
//
//   id (3 words) | hash (4 words) | created | last used | expires | upper halves of created and last used | upper half of
// expires, place of its terms in the head | count
import type { Hmac } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import { endianness } from 'node:os'
import { z } from 'zod'
import { tokenKinds } from '../../../../packages/client/contract.ts'
import { isSameRate } from '../rates.ts'
import { noAuthority, type TokenRecord } from '../tokenPort.ts'
import type { UserRecord } from '../userPort.ts'
import { setName, setParent } from './rareParts.ts'
import { column, isPackedRef, none, packedLength } from './table.ts'
import type { Terms } from './terms.ts'
import type { Memory } from './tokenStore.ts'
import { raiseAuthority } from './users.ts'

const [firstLine, ...earlierFirstLines] = [6, 5, 4, 3].map(version => `latchkey tokens ${version} ${endianness()}`) as [
  string,
]

const natural = z.number().int().nonnegative()
const bucket = z.object({ rate: z.object({ perMinute: natural, burst: natural }), fullAtUs: natural })

const headSchema = z.object({
  terms: z.array(
    z.object({
      kind: z.enum(tokenKinds),
      purpose: z.string().nullable(),
      credentialVersion: natural,
      ttlMs: z.number().int(),
      lifetimeMs: z.number().int(),
      scope: z.string().nullable().default(null),
      paused: z.boolean().default(false),
    }),
  ),
  /** Id, username and number of rows. The rows are in the order of the users, and those of a user in the order of issue. */
  users: z.array(z.tuple([z.string().nullable(), z.string().nullable(), natural])),
  /** Row and `loginId`, if that is not the usual one. */
  logins: z.array(z.tuple([natural, z.string().length(14).nullable()])),
  /** Row, lineage and time of the last renewal of each renewed token. */
  renewals: z.array(z.tuple([natural, z.string().length(20), natural])),
  /** Row and limits of each token that has any. */
  limits: z
    .array(z.tuple([natural, z.object({ bucket: bucket.nullable(), usesLeft: natural.nullable() })]))
    .default([]),
  /** Row and name of each token that has one. */
  names: z.array(z.tuple([natural, z.string()])).default([]),
  /** Row and id of the parent of each delegated token. */
  parents: z.array(z.tuple([natural, z.string().length(14)])).default([]),
  /** Id and bucket of each user that has one. */
  buckets: z.array(z.tuple([z.string(), bucket])).default([]),
})

export interface Block {
  head: z.infer<typeof headSchema>
  rows: Int32Array
}

export function emptyHead(): Block['head'] {
  return { terms: [], users: [], logins: [], renewals: [], limits: [], names: [], parents: [], buckets: [] }
}

export const rowLength = 13
const created = packedLength
const lastUsed = created + 1
const expires = created + 2
const upperHalves = created + 3
const upperAndTerms = created + 4
const count = created + 5

type RowState = Pick<TokenRecord, 'createdAt' | 'lastUsedAt' | 'expiresAt' | 'refreshCount'>

/** Writes everything but the id and the hash. `terms` is a place in the head. */
export function writeRow(rows: Int32Array, start: number, state: RowState, terms: number): void {
  const { createdAt, lastUsedAt, expiresAt, refreshCount } = state
  rows[start + created] = createdAt
  rows[start + lastUsed] = lastUsedAt
  rows[start + expires] = expiresAt
  rows[start + upperHalves] = upperOf(createdAt) | (upperOf(lastUsedAt) << 16)
  rows[start + upperAndTerms] = upperOf(expiresAt) | (terms << 16)
  rows[start + count] = refreshCount
}

const upperOf = (instant: number): number => Math.floor(instant / 2 ** 32)

const instant = (rows: Int32Array, lower: number, upper: number, shift: number): number =>
  (((rows[upper] as number) >>> shift) & 0xffff) * 2 ** 32 + ((rows[lower] as number) >>> 0)
const expiryOf = (rows: Int32Array, start: number) => instant(rows, start + expires, start + upperAndTerms, 0)
const termsOf = (rows: Int32Array, start: number) => (rows[start + upperAndTerms] as number) >>> 16

const visitsPerBlock = 4096 // a block takes a few milliseconds

/**
 * The tokens that are live at `now`, as the content of a file. Yields after each few thousand users and tokens, even if none of
 * them is live, so that the caller can let other work run. The store must not change meanwhile.
 */
export function* packTokens(memory: Memory, now: number, checksum: Hmac): Generator<Buffer> {
  const { table, users, slots } = memory
  const rows = new Int32Array(visitsPerBlock * rowLength)
  let block = createBlock(memory, rows)
  let visits = 0

  function signed(bytes: Buffer): Buffer {
    checksum.update(bytes)
    return bytes
  }

  yield signed(Buffer.from(`${firstLine}\n`))
  for (let user = 0; user < users.used(); user++) {
    let slot = users.oldestOf(user)
    for (;;) {
      if (++visits % visitsPerBlock === 0) {
        yield signed(block.pack())
        block = createBlock(memory, rows)
      }
      if (slot === none) break
      if (!slots.isDead(slot, now)) block.add(user, slot)
      slot = table.get(slot, column.newer)
    }
  }
  yield signed(block.pack())
  yield signed(Buffer.alloc(8))
  yield checksum.digest()
}

function createBlock({ table, users, authorities, rare, slots }: Memory, rows: Int32Array) {
  const head = emptyHead()
  /** Number of terms -> their place in the head. */
  const places = new Map<number, number>()
  let added = 0
  let lastUser = none
  let rowsOfUser: Block['head']['users'][number]

  function placeOfTerms(slot: number): number {
    const number = table.get(slot, column.terms)
    const known = places.get(number)
    if (known !== undefined) return known
    places.set(number, head.terms.length)
    return head.terms.push(slots.termsOf(slot)) - 1
  }

  return {
    add(user: number, slot: number): void {
      if (user !== lastUser) {
        const { userId, username } = users.namesOf(user)
        rowsOfUser = [userId, username, 0]
        head.users.push(rowsOfUser)
        lastUser = user
        const bucket = authorities.bucketOf(user)
        if (bucket && userId !== null) head.buckets.push([userId, bucket])
      }
      rowsOfUser[2]++
      const login = rare.logins.get(slot)
      if (login !== undefined) head.logins.push([added, login])
      const renewal = rare.renewals.get(slot)
      if (renewal) head.renewals.push([added, renewal.lineage, renewal.renewedAt])
      const limits = rare.limits.get(slot)
      if (limits) head.limits.push([added, limits])
      const name = rare.names.get(slot)
      if (name !== undefined) head.names.push([added, name])
      const parent = rare.parents.get(slot)
      if (parent !== undefined) head.parents.push([added, parent])
      const start = added++ * rowLength
      table.pack(slot, rows, start)
      const [createdAt, lastUsedAt, expiresAt] = [table.createdAt(slot), table.lastUsedAt(slot), table.expiresAt(slot)]
      const refreshCount = table.get(slot, column.refreshCount)
      writeRow(rows, start, { createdAt, lastUsedAt, expiresAt, refreshCount }, placeOfTerms(slot))
    },

    /** Empty if there are no tokens. */
    pack(): Buffer {
      if (added === 0) return Buffer.alloc(0)
      const json = Buffer.from(JSON.stringify(head))
      const padding = Buffer.alloc(-json.length & 3, ' ')
      const lengths = new Uint32Array([json.length + padding.length, added * rowLength * 4])
      return Buffer.concat([Buffer.from(lengths.buffer), json, padding, Buffer.from(rows.buffer, 0, lengths[1])])
    },
  }
}

/** The blocks of a file. Throws, at the latest after the last block, if the file is not complete or the checksum is wrong. */
export async function* readBlocks(file: FileHandle, checksum: Hmac): AsyncGenerator<Block> {
  const { size } = await file.stat()
  let position = 0

  async function read(length: number): Promise<Buffer> {
    if (length > size - position) throw new Error('it ends too early')
    const buffer = Buffer.from(new ArrayBuffer(length)) // so that it begins at a multiple of 4 bytes
    for (let done = 0; done < length; ) {
      const { bytesRead } = await file.read(buffer, done, length - done, position + done)
      if (bytesRead === 0) throw new Error('it ends too early')
      done += bytesRead
    }
    position += length
    return buffer
  }

  async function readSigned(length: number): Promise<Buffer> {
    const bytes = await read(length)
    checksum.update(bytes)
    return bytes
  }

  const line = await readSigned(Math.min(Math.max(size, 1), firstLine.length + 1))
  const isKnown = [firstLine, ...earlierFirstLines].some(known => line.toString() === `${known}\n`)
  if (!isKnown) throw new Error(`its first line is not "${firstLine}"`)
  for (let number = 1; ; number++) {
    const lengths = await readSigned(8)
    const [ofHead = 0, ofRows = 0] = new Uint32Array(lengths.buffer)
    if (ofHead === 0 && ofRows === 0) break
    const head = await readSigned(ofHead)
    yield parseBlock(head.toString(), await readSigned(ofRows), number)
  }
  if (!(await read(32)).equals(checksum.digest())) {
    throw new Error('its checksum is wrong, or it was written with another ADMIN_KEY')
  }
  if (position !== size) throw new Error('something follows its checksum')
}

function parseBlock(json: string, bytes: Buffer, number: number): Block {
  const { data: head } = headSchema.safeParse(parseJson(json))
  if (head === undefined) throw new Error(`the head of block ${number} is malformed`)
  const rows = new Int32Array(bytes.buffer, 0, Math.floor(bytes.length / 4))
  const length = head.users.reduce((sum, [, , rows]) => sum + rows, 0)
  if (bytes.length !== length * rowLength * 4) throw new Error(`block ${number} has not as many rows as its head says`)
  for (let start = 0; start < rows.length; start += rowLength) {
    if (termsOf(rows, start) < head.terms.length && isPackedRef(rows, start)) continue
    throw new Error(`row ${start / rowLength} of block ${number} is malformed`)
  }
  return { head, rows }
}

/** Undefined if it is not JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What a snapshot does not contain, because it may change before the next start. */
export type TokenOwner = Pick<UserRecord, 'credentialVersion' | 'authority'>

const guest: TokenOwner = { credentialVersion: 0, authority: noAuthority }

export interface Restoring {
  memory: Memory
  /** The user as they are now; null for an unknown user, whose tokens are dropped. */
  ownerOf: (userId: string) => Promise<TokenOwner | null>
  now: number
}

/** Adds the tokens of the block that are still wanted to the store. */
export async function loadBlock({ head, rows }: Block, { memory, ownerOf, now }: Restoring) {
  const { users, authorities, rare, slots } = memory
  const numberOfTerms = createNumbersOfTerms(head, memory)
  const logins = new Map(head.logins)
  const limits = new Map(head.limits)
  const names = new Map(head.names)
  const parents = new Map(head.parents.map(([row, id]) => [row, { id }]))
  const buckets = new Map(head.buckets)
  const renewals = new Map(head.renewals.map(([row, lineage, renewedAt]) => [row, { lineage, renewedAt }]))
  const counts = { tokens: 0, dropped: 0 }
  const restoreUser = (names: Parameters<typeof users.findOrAdd>[0], { authority }: TokenOwner): number => {
    const user = users.findOrAdd(names)
    raiseAuthority(memory, user, authority)
    const [bucket, before] = [authorities.bucketOf(user), buckets.get(names.userId ?? '')]
    if (bucket && before && isSameRate(bucket.rate, before.rate)) bucket.fullAtUs = before.fullAtUs
    return user
  }
  let row = 0
  for (const [userId, username, rowsOfUser] of head.users) {
    // Use the user's current version: users in memory start again at 1, so their next floor is 2 and must end these tokens.
    const owner = userId === null ? guest : await ownerOf(userId)
    const version = owner?.credentialVersion ?? Infinity
    let user = none
    for (const end = row + rowsOfUser; row < end; row++) {
      const start = row * rowLength
      const place = termsOf(rows, start)
      const expiresAt = expiryOf(rows, start)
      if (expiresAt <= now || (head.terms[place] as Terms).credentialVersion < version) {
        counts.dropped++
        continue
      }
      if (user === none) user = restoreUser({ userId, username }, owner as TokenOwner)
      const slot = slots.addPacked(rows, start, {
        createdAt: instant(rows, start + created, start + upperHalves, 0),
        lastUsedAt: instant(rows, start + lastUsed, start + upperHalves, 16),
        expiresAt,
        refreshCount: rows[start + count] as number,
        user,
        terms: numberOfTerms(place, version),
        login: logins.get(row),
        limits: limits.get(row),
      })
      const renewal = renewals.get(row)
      if (renewal) rare.renewals.set(slot, renewal)
      setName(rare, slot, names.get(row) ?? null)
      setParent(rare, slot, parents.get(row) ?? null)
      counts.tokens++
    }
  }
  return counts
}

/** Counts one more token with the terms at a place of the head and with this version, and returns their number. */
function createNumbersOfTerms({ terms: all }: Block['head'], { terms }: Memory) {
  const known: { version: number; number: number }[] = []
  return (place: number, version: number): number => {
    const last = known[place]
    if (last?.version === version) return terms.addTo(last.number)
    const number = terms.add({ ...(all[place] as Terms), credentialVersion: version })
    known[place] = { version, number }
    return number
  }
}
