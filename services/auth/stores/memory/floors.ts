// The floors of the users in the memory store, in typed arrays, and which of them are old enough to be forgotten. Hides that the
// age of a floor is known only by the period in which it was set, because times would take as much memory as the floors.
import { floorKeptMs } from '../tokenPort.ts'

const pageBits = 12
const pageLength = 1 << pageBits

export interface Floors {
  /** The user's floor; 0 for none. */
  of(user: number): number
  set(user: number, version: number): void
  /** Removes the floor. Must be called before a number is used for the first time; the numbers are used in their order. */
  clear(user: number): void
  /** Removes at most `limit` floors that were set longer than `floorKeptMs` ago, and returns the users that had them. */
  takeOld(now: number, limit: number): number[]
}

export function createFloors(): Floors {
  const pages: Float64Array[] = []
  let recent = new Set<number>() // users whose floors were set since the last turn
  let earlier = new Set<number>() // in the period before it
  let old = new Set<number>()
  let turnedAt: number | null = null

  function write(user: number, version: number): void {
    ;(pages[user >>> pageBits] as Float64Array)[user & (pageLength - 1)] = version
  }

  return {
    of: user => (pages[user >>> pageBits] as Float64Array)[user & (pageLength - 1)] as number,

    set(user, version) {
      earlier.delete(user)
      old.delete(user)
      recent.add(user)
      write(user, version)
    },

    clear(user) {
      if (user === pages.length * pageLength) pages.push(new Float64Array(pageLength))
      write(user, 0)
    },

    takeOld(now, limit) {
      turnedAt ??= now
      if (now - turnedAt >= floorKeptMs && old.size === 0) {
        old = earlier
        earlier = recent
        recent = new Set()
        turnedAt = now
      }
      const taken: number[] = []
      for (const user of old) {
        if (taken.length === limit) break
        old.delete(user)
        write(user, 0)
        taken.push(user)
      }
      return taken
    },
  }
}
