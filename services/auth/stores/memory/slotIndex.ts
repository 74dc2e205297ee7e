// Finds slots by hash: an extendible hash table of slot numbers, 4 bytes each. It grows by splitting one segment at a
// time, so that no insert has to wait while the whole table is rebuilt.

const segmentLength = 1024 // entries; a split moves at most this many, in less than a millisecond
const mask = segmentLength - 1
const maxPerSegment = segmentLength * 0.8 // above this, probes become long
const segmentsPerPage = 64

const moving = new Uint32Array(segmentLength) // the entries of the segment that is being split

/** `hashOf` must return the 32-bit hash under which a slot was added; it is called again whenever entries move. */
export function createSlotIndex(hashOf: (slot: number) => number) {
  /** Each entry is a slot + 1, or 0 if it is free; collisions use open addressing. Segments are numbered over all pages. */
  const pages: Uint32Array[] = []
  /** By segment: how many of the highest hash bits all its entries share. */
  const depths: number[] = []
  /** By segment: the number of its entries. */
  const counts: number[] = []
  let depth = 0
  let directory = [addSegment(0)] // segments by the `depth` highest bits of a hash; neighbours may share one

  function addSegment(depth: number): number {
    const segment = depths.length
    if (segment % segmentsPerPage === 0) pages.push(new Uint32Array(segmentsPerPage * segmentLength))
    depths.push(depth)
    counts.push(0)
    return segment
  }

  const pageOf = (segment: number): Uint32Array => pages[Math.floor(segment / segmentsPerPage)] as Uint32Array
  const placeOf = (hash: number): number => (depth === 0 ? 0 : hash >>> (32 - depth))
  const segmentOf = (hash: number): number => directory[placeOf(hash)] as number

  function put(segment: number, hash: number, slot: number): void {
    const page = pageOf(segment)
    const start = startOf(segment)
    let at = hash & mask
    while (page[start + at] !== 0) at = (at + 1) & mask
    page[start + at] = slot + 1
    counts[segment] = (counts[segment] as number) + 1
  }

  /** Moves half of the entries, those with the next bit set, to a new segment. `hash` is that of any entry. */
  function split(segment: number, hash: number): void {
    const oldDepth = depths[segment] as number
    if (oldDepth === depth) {
      directory = directory.flatMap(shared => [shared, shared])
      depth++
    }
    const half = addSegment(oldDepth + 1)
    depths[segment] = oldDepth + 1
    const shared = 2 ** (depth - oldDepth) // neighbours in the directory; half of them get the new segment
    const first = placeOf(hash) - (placeOf(hash) % shared)
    directory.fill(half, first + shared / 2, first + shared)
    const entries = pageOf(segment).subarray(startOf(segment), startOf(segment) + segmentLength)
    moving.set(entries)
    entries.fill(0)
    counts[segment] = 0
    for (const entry of moving) {
      if (entry === 0) continue
      const hash = hashOf(entry - 1)
      put((hash >>> (31 - oldDepth)) & 1 ? half : segment, hash, entry - 1)
    }
  }

  return {
    /** Makes room for so many entries in an empty index at once, which is faster than splitting again and again. */
    reserve(count: number): void {
      while (2 ** depth * maxPerSegment < count) depth++
      depths[0] = depth
      directory = Array.from({ length: 2 ** depth }, (_, i) => (i === 0 ? 0 : addSegment(depth)))
    },

    /** The first slot with this hash that satisfies `isWanted`, or -1. */
    find(hash: number, isWanted: (slot: number) => boolean): number {
      const segment = segmentOf(hash)
      const page = pageOf(segment)
      const start = startOf(segment)
      for (let at = hash & mask; ; at = (at + 1) & mask) {
        const entry = page[start + at] as number
        if (entry === 0) return -1
        if (isWanted(entry - 1)) return entry - 1
      }
    },

    add(hash: number, slot: number): void {
      let segment = segmentOf(hash)
      while ((counts[segment] as number) >= maxPerSegment) {
        split(segment, hash)
        segment = segmentOf(hash)
      }
      put(segment, hash, slot)
    },

    /** The slot must be in the index. */
    remove(hash: number, slot: number): void {
      const segment = segmentOf(hash)
      const page = pageOf(segment)
      const start = startOf(segment)
      let hole = hash & mask
      while (page[start + hole] !== slot + 1) hole = (hole + 1) & mask
      // Entries that were pushed past the hole move back, so that no probe stops too early and no tombstone is needed.
      for (let at = (hole + 1) & mask; page[start + at] !== 0; at = (at + 1) & mask) {
        const home = hashOf((page[start + at] as number) - 1) & mask
        if (((at - home) & mask) < ((at - hole) & mask)) continue
        page[start + hole] = page[start + at] as number
        hole = at
      }
      page[start + hole] = 0
      counts[segment] = (counts[segment] as number) - 1
    },
  }
}

/** Where the segment begins in its page. */
const startOf = (segment: number): number => (segment % segmentsPerPage) * segmentLength
