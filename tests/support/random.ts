// Repeatable random numbers: the same seed gives the same numbers. Each client has its own stream, so that the answers
// to one client do not change the choices of another.

export interface Random {
  /** 0 <= x < 1. */
  next(): number
  between(from: number, to: number): number
  chance(share: number): boolean
  pick<T>(items: readonly T[]): T
  shuffle<T>(items: readonly T[]): T[]
  /** Another stream, chosen by `name`. */
  stream(name: string): Random
}

/** mulberry32. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0

  function next(): number {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  const random: Random = {
    next,
    between: (from, to) => from + next() * (to - from),
    chance: share => next() < share,
    pick: items => items[Math.floor(next() * items.length)] as (typeof items)[number],
    shuffle(items) {
      const left = [...items]
      return items.map(() => left.splice(Math.floor(next() * left.length), 1)[0] as (typeof items)[number])
    },
    stream(name) {
      let mixed = seed >>> 0
      for (const character of name) mixed = Math.imul(mixed ^ character.charCodeAt(0), 0x01000193) >>> 0
      return createRandom(mixed)
    },
  }
  return random
}
