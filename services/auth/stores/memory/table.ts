// The slots of the memory store: typed arrays, allocated a page at a time without an object per token, and the index
// that finds a slot by token id. Hides the layout and how ids and hashes are packed.

import { readBase62, writeBase62 } from '../../../../shared/base62.ts'
import type { TokenRef } from '../ports.ts'
import { createSlotIndex } from './slotIndex.ts'

// A token takes one element in each column of a page, 76 bytes in all, and another 5 to 10 bytes in the index:
//
//   tag 4 | time 4 | random 4 | hash 16 | expires 8 | absolute end 8 | created 8 | last used 8 | group 4 | count 4 |
// older 4 | newer 4
//
// The 14 characters of an id are three base62 numbers: tag, time and random. The store keeps 120 bits of the hash,
// still far too many to guess. A free slot has an infinite expiry, so that a sweep scans only one column, in order.
const pageBits = 16
const pageLength = 1 << pageBits

const createPage = () => ({
  tag: new Uint32Array(pageLength),
  time: new Uint32Array(pageLength),
  random: new Uint32Array(pageLength),
  hash: new Uint32Array(4 * pageLength),
  expiresAt: new Float64Array(pageLength).fill(Infinity),
  absoluteExpiresAt: new Float64Array(pageLength),
  createdAt: new Float64Array(pageLength),
  lastUsedAt: new Float64Array(pageLength),
  /** The number of the token's group; see groups.ts. */
  group: new Uint32Array(pageLength),
  refreshCount: new Uint32Array(pageLength),
  /** The neighbouring slots in the list of the user's tokens. */
  older: new Int32Array(pageLength),
  newer: new Int32Array(pageLength),
})

type Page = ReturnType<typeof createPage>

/** How many base64url characters of a hash the store keeps: 120 bits. */
export const hashLength = 20

/** No slot. */
export const none = -1

/** The index of a slot within the columns of its page. */
export const placeOf = (slot: number): number => slot & (pageLength - 1)

export interface TokenTable {
  /** The page that holds the slot. */
  pageOf(slot: number): Page
  /** The slot of the token with this id, or `none`. */
  find(id: string): number
  hasHash(slot: number, hash: string): boolean
  setHash(slot: number, hash: string): void
  /**
   * Allocates a slot for this id, which must not be in the table yet. Sets only the columns of the id and the hash; the
   * others still hold the values of the slot's previous token.
   */
  take(ref: TokenRef): number
  free(slot: number): void
  isFree(slot: number): boolean
  idOf(slot: number): string
  /** The first `hashLength` characters of the hash; the rest is not stored. */
  hashOf(slot: number): string
  /** The number of tokens. */
  count(): number
  /** One more than the highest slot ever used. */
  used(): number
}

export function createTokenTable(): TokenTable {
  const pages: Page[] = []
  let used = 0
  let freed = none // the first free slot; `newer` links to the next one
  let count = 0

  const pageOf = (slot: number): Page => pages[slot >>> pageBits] as Page

  const index = createSlotIndex(slot => {
    const { tag, time, random } = pageOf(slot)
    const i = placeOf(slot)
    return mix(tag[i] as number, time[i] as number, random[i] as number)
  })

  // What `find` looks for. A shared variable avoids allocating a closure on each call.
  const wanted = { tag: 0, time: 0, random: 0 }
  function isWanted(slot: number): boolean {
    const { tag, time, random } = pageOf(slot)
    const i = placeOf(slot)
    return random[i] === wanted.random && time[i] === wanted.time && tag[i] === wanted.tag
  }

  /** Sets `wanted` and returns the hash of the id for the index. */
  function want(id: string): number {
    wanted.tag = readBase62(id, 0, 4)
    wanted.time = readBase62(id, 4, 9)
    wanted.random = readBase62(id, 9, 14)
    return mix(wanted.tag, wanted.time, wanted.random)
  }

  function setHash(slot: number, hash: string): void {
    const { hash: column } = pageOf(slot)
    for (let part = 0; part < 4; part++) column[4 * placeOf(slot) + part] = readBase64(hash, 5 * part)
  }

  return {
    pageOf,
    setHash,

    find: id => index.find(want(id), isWanted),

    hasHash(slot, hash) {
      const { hash: column } = pageOf(slot)
      const i = 4 * placeOf(slot)
      for (let part = 0; part < 4; part++) if (column[i + part] !== readBase64(hash, 5 * part)) return false
      return true
    },

    take({ id, hash }) {
      const idHash = want(id)
      const slot = freed === none ? used++ : freed
      if (slot === freed) freed = pageOf(slot).newer[placeOf(slot)] as number
      else if (slot === pages.length * pageLength) pages.push(createPage())
      const page = pageOf(slot)
      const i = placeOf(slot)
      page.tag[i] = wanted.tag
      page.time[i] = wanted.time
      page.random[i] = wanted.random
      setHash(slot, hash)
      index.add(idHash, slot)
      count++
      return slot
    },

    free(slot) {
      const page = pageOf(slot)
      const i = placeOf(slot)
      index.remove(mix(page.tag[i] as number, page.time[i] as number, page.random[i] as number), slot)
      page.expiresAt[i] = Infinity
      page.newer[i] = freed
      freed = slot
      count--
    },

    isFree: slot => pageOf(slot).expiresAt[placeOf(slot)] === Infinity,

    idOf(slot) {
      const { tag, time, random } = pageOf(slot)
      const i = placeOf(slot)
      return writeBase62(tag[i] as number, 4) + writeBase62(time[i] as number, 5) + writeBase62(random[i] as number, 5)
    },

    hashOf(slot) {
      const { hash: column } = pageOf(slot)
      return [0, 1, 2, 3].map(part => writeBase64(column[4 * placeOf(slot) + part] as number)).join('')
    },

    count: () => count,

    used: () => used,
  }
}

/** A 32-bit hash that depends on every bit of the id. */
function mix(tag: number, time: number, random: number): number {
  const hash = Math.imul(random ^ Math.imul(time ^ Math.imul(tag, 0x85ebca6b), 0x9e3779b1), 0xc2b2ae35)
  return Math.imul(hash ^ (hash >>> 15), 0x27d4eb2f) >>> 0
}

const base64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
/** The value of each character, indexed by its code. */
const base64Values = Uint8Array.from({ length: 128 }, (_, code) =>
  Math.max(0, base64.indexOf(String.fromCharCode(code))),
)

/** Reads five characters, 30 bits. */
function readBase64(text: string, from: number): number {
  let value = 0
  for (let i = from; i < from + 5; i++) value = (value << 6) | (base64Values[text.charCodeAt(i)] as number)
  return value
}

function writeBase64(value: number): string {
  let digits = ''
  for (let shift = 24; shift >= 0; shift -= 6) digits += base64[(value >>> shift) & 63]
  return digits
}
