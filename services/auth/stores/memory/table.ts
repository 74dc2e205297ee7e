// The slots of the memory store: typed arrays, allocated a page at a time without an object per token, and the index
// that finds a slot by token id. Hides the layout and how ids, hashes and instants are packed.

import { readBase62, writeBase62 } from '../../../../shared/base62.ts'
import type { TokenRef } from '../tokenPort.ts'
import { createSlotIndex } from './slotIndex.ts'

// A token takes a row of 15 words of 32 bits and one element of the column of expiries, 68 bytes in all, and another 5 to
// 10 bytes in the index:
//
//   tag | time | random | hash (4 words) | created | last used | upper halves of both instants | user | terms | count |
// older | newer
//
// The 14 characters of an id are three base62 numbers: tag, time and random. The store keeps 120 bits of the hash,
// still far too many to guess. Instants have 48 bits: 32 in a word of their own, 16 in the word that they share. A row
// lies in one or two cache lines, so that a touch of one among millions waits for memory twice, not ten times. A free
// slot has an infinite expiry, so that a sweep scans only one column, in order.
const pageBits = 16
const pageLength = 1 << pageBits
const rowLength = 15
const tag = 0
const time = 1
const random = 2
const hash = 3
const created = 7
const lastUsed = 8
const upperHalves = 9
const createdShift = 0
const lastUsedShift = 16

/** The words of a row that other files read and write. */
export const column = {
  /** See users.ts. */
  user: 10,
  /** See terms.ts. */
  terms: 11,
  refreshCount: 12,
  /** The neighbouring slots in the list of the user's tokens. */
  older: 13,
  newer: 14,
} as const

type Column = (typeof column)[keyof typeof column]

/** An id and a hash take the first words of a row. */
export const packedLength = 7

/** How many base64url characters of a hash the store keeps: 120 bits. */
export const hashLength = 20

/** No slot. */
export const none = -1

export interface TokenTable {
  /** The slot of the token with this id, or `none`. */
  find(id: string): number
  hasHash(slot: number, hash: string): boolean
  setHash(slot: number, hash: string): void
  /**
   * Allocates a slot for the packed id and hash that begin at `start`; the id must not be in the table yet. Everything else
   * is as the slot's previous token left it.
   */
  take(packed: Int32Array, start: number): number
  /** Writes the id and the hash as `take` expects them. */
  pack(slot: number, into: Int32Array, start: number): void
  /** Prepares an empty table for so many tokens. */
  reserve(tokens: number): void
  free(slot: number): void
  isFree(slot: number): boolean
  idOf(slot: number): string
  /** A signed number of 32 bits. */
  get(slot: number, column: Column): number
  set(slot: number, column: Column, value: number): void
  createdAt(slot: number): number
  setCreatedAt(slot: number, at: number): void
  lastUsedAt(slot: number): number
  setLastUsedAt(slot: number, at: number): void
  expiresAt(slot: number): number
  setExpiresAt(slot: number, at: number): void
  /** The number of tokens. */
  count(): number
  /** One more than the highest slot ever used. */
  used(): number
}

export function createTokenTable(): TokenTable {
  const rows: Int32Array[] = []
  const expiries: Float64Array[] = []
  let used = 0
  let freed = none // the first free slot; `newer` links to the next one
  let count = 0

  const rowsOf = (slot: number): Int32Array => rows[slot >>> pageBits] as Int32Array
  const get = (slot: number, word: number): number => rowsOf(slot)[startOf(slot) + word] as number
  function set(slot: number, word: number, value: number): void {
    rowsOf(slot)[startOf(slot) + word] = value
  }

  function instant(slot: number, lower: number, shift: number): number {
    return ((get(slot, upperHalves) >>> shift) & 0xffff) * 2 ** 32 + (get(slot, lower) >>> 0)
  }

  function setInstant(slot: number, lower: number, shift: number, at: number): void {
    const others = get(slot, upperHalves) & ~(0xffff << shift)
    set(slot, upperHalves, others | (Math.floor(at / 2 ** 32) << shift))
    set(slot, lower, at)
  }

  const expiresAt = (slot: number): number => (expiries[slot >>> pageBits] as Float64Array)[placeOf(slot)] as number
  function setExpiresAt(slot: number, at: number): void {
    ;(expiries[slot >>> pageBits] as Float64Array)[placeOf(slot)] = at
  }

  const indexHashOf = (slot: number): number => mix(get(slot, tag), get(slot, time), get(slot, random))
  const index = createSlotIndex(indexHashOf)

  // What `find` looks for. A shared variable avoids allocating a closure on each call.
  const wanted = { tag: 0, time: 0, random: 0 }
  const isWanted = (slot: number): boolean =>
    get(slot, random) === wanted.random && get(slot, time) === wanted.time && get(slot, tag) === wanted.tag

  /** Sets `wanted` and returns the hash of the id for the index. */
  function want(id: string): number {
    wanted.tag = readBase62(id, 0, 4)
    wanted.time = readBase62(id, 4, 9)
    wanted.random = readBase62(id, 9, 14)
    return mix(wanted.tag, wanted.time, wanted.random)
  }

  function setHash(slot: number, text: string): void {
    for (let part = 0; part < 4; part++) set(slot, hash + part, readBase64(text, 5 * part))
  }

  function takeSlot(): number {
    const slot = freed === none ? used++ : freed
    if (slot === freed) freed = get(slot, column.newer)
    else if (slot === rows.length * pageLength) {
      rows.push(new Int32Array(rowLength * pageLength))
      expiries.push(new Float64Array(pageLength).fill(Infinity))
    }
    count++
    return slot
  }

  return {
    get,
    set,
    setHash,
    reserve: index.reserve,
    expiresAt,
    setExpiresAt,
    createdAt: slot => instant(slot, created, createdShift),
    setCreatedAt: (slot, at) => setInstant(slot, created, createdShift, at),
    lastUsedAt: slot => instant(slot, lastUsed, lastUsedShift),
    setLastUsedAt: (slot, at) => setInstant(slot, lastUsed, lastUsedShift, at),

    find: id => index.find(want(id), isWanted),

    hasHash(slot, text) {
      for (let part = 0; part < 4; part++) if (get(slot, hash + part) !== readBase64(text, 5 * part)) return false
      return true
    },

    take(packed, start) {
      const slot = takeSlot()
      for (let word = 0; word < packedLength; word++) set(slot, word, packed[start + word] as number)
      index.add(indexHashOf(slot), slot)
      return slot
    },

    pack(slot, into, start) {
      for (let word = 0; word < packedLength; word++) into[start + word] = get(slot, word)
    },

    free(slot) {
      index.remove(indexHashOf(slot), slot)
      setExpiresAt(slot, Infinity)
      set(slot, column.newer, freed)
      freed = slot
      count--
    },

    isFree: slot => expiresAt(slot) === Infinity,

    idOf: slot => writeBase62(get(slot, tag), 4) + writeBase62(get(slot, time), 5) + writeBase62(get(slot, random), 5),

    count: () => count,

    used: () => used,
  }
}

/** The index of the slot in the column of its page. */
const placeOf = (slot: number): number => slot & (pageLength - 1)

/** Where the slot's row begins in its page. */
const startOf = (slot: number): number => placeOf(slot) * rowLength

export function packRef(ref: TokenRef, into: Int32Array, start: number): void {
  into[start + tag] = readBase62(ref.id, 0, 4)
  into[start + time] = readBase62(ref.id, 4, 9)
  into[start + random] = readBase62(ref.id, 9, 14)
  for (let part = 0; part < 4; part++) into[start + hash + part] = readBase64(ref.hash, 5 * part)
}

/** Whether `packRef` can have written these words. */
export function isPackedRef(words: Int32Array, start: number): boolean {
  for (let word = 0; word < packedLength; word++) {
    if ((words[start + word] as number) >>> 0 >= (packedLimits[word] as number)) return false
  }
  return true
}

const packedLimits = [62 ** 4, 62 ** 5, 62 ** 5, 2 ** 30, 2 ** 30, 2 ** 30, 2 ** 30]

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
