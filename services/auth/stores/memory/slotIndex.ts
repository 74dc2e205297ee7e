// Finds slots by hash: an extendible hash table of slot numbers, 4 bytes each. It grows by splitting one segment at a
// time, so that no insert has to wait while the whole table is rebuilt.

interface Segment {
  /** How many of the highest hash bits all entries share. */
  depth: number
  count: number
  /** Each entry is a slot + 1, or 0 if it is free; collisions use open addressing. */
  entries: Uint32Array
}

const segmentLength = 1024 // entries; a split moves at most this many, in less than a millisecond
const mask = segmentLength - 1
const moving = new Uint32Array(segmentLength) // the entries of the segment that is being split
const maxPerSegment = segmentLength * 0.8 // above this, probes become long

/** `hashOf` must return the 32-bit hash under which a slot was added; it is called again whenever entries move. */
export function createSlotIndex(hashOf: (slot: number) => number) {
  let depth = 0
  let directory = [createSegment(0)] // indexed by the `depth` highest bits of a hash; neighbours may share a segment

  const placeOf = (hash: number): number => (depth === 0 ? 0 : hash >>> (32 - depth))
  const segmentOf = (hash: number): Segment => directory[placeOf(hash)] as Segment

  function put(segment: Segment, hash: number, slot: number): void {
    let at = hash & mask
    while (segment.entries[at] !== 0) at = (at + 1) & mask
    segment.entries[at] = slot + 1
    segment.count++
  }

  /** Moves half of the entries, those with the next bit set, to a new segment. `hash` is that of any entry. */
  function split(segment: Segment, hash: number): void {
    if (segment.depth === depth) {
      directory = directory.flatMap(shared => [shared, shared])
      depth++
    }
    const half = createSegment(segment.depth + 1)
    const shared = 2 ** (depth - segment.depth) // neighbours in the directory; half of them get the new segment
    const first = placeOf(hash) - (placeOf(hash) % shared)
    directory.fill(half, first + shared / 2, first + shared)
    moving.set(segment.entries)
    segment.entries.fill(0)
    segment.count = 0
    segment.depth = half.depth
    for (const entry of moving) {
      if (entry === 0) continue
      const hash = hashOf(entry - 1)
      put((hash >>> (32 - half.depth)) & 1 ? half : segment, hash, entry - 1)
    }
  }

  return {
    /** Makes room for so many entries in an empty index at once, which is faster than splitting again and again. */
    reserve(count: number): void {
      while (2 ** depth * maxPerSegment < count) depth++
      directory = Array.from({ length: 2 ** depth }, () => createSegment(depth))
    },

    /** The first slot with this hash that satisfies `isWanted`, or -1. */
    find(hash: number, isWanted: (slot: number) => boolean): number {
      const { entries } = segmentOf(hash)
      for (let at = hash & mask; ; at = (at + 1) & mask) {
        const entry = entries[at] as number
        if (entry === 0) return -1
        if (isWanted(entry - 1)) return entry - 1
      }
    },

    add(hash: number, slot: number): void {
      let segment = segmentOf(hash)
      while (segment.count >= maxPerSegment) {
        split(segment, hash)
        segment = segmentOf(hash)
      }
      put(segment, hash, slot)
    },

    /** The slot must be in the index. */
    remove(hash: number, slot: number): void {
      const segment = segmentOf(hash)
      const { entries } = segment
      let hole = hash & mask
      while (entries[hole] !== slot + 1) hole = (hole + 1) & mask
      // Entries that were pushed past the hole move back, so that no probe stops too early and no tombstone is needed.
      for (let at = (hole + 1) & mask; entries[at] !== 0; at = (at + 1) & mask) {
        const home = hashOf((entries[at] as number) - 1) & mask
        if (((at - home) & mask) < ((at - hole) & mask)) continue
        entries[hole] = entries[at] as number
        hole = at
      }
      entries[hole] = 0
      segment.count--
    },
  }
}

function createSegment(depth: number): Segment {
  return { depth, count: 0, entries: new Uint32Array(segmentLength) }
}
