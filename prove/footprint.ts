// The resources that the two processes hold: memory, file descriptors, tokens. Hides where the figures come from and how growth
// is computed.
import { readdirSync } from 'node:fs'
import { residentBytes } from '../tests/support/processes.ts'
import type { Pair } from './pair.ts'

export interface Footprint {
  atS: number
  authMb: number
  businessMb: number
  /** File descriptors of both processes. */
  descriptors: number
  /** p99 of the delay of Auth's event loop since the previous footprint. */
  loopDelayMs: number
  /** Includes dead tokens until they are swept. */
  tokens: number
}

/** Null while one of the processes is not running. */
export async function footprintOf({ auth, business }: Pair, atS: number): Promise<Footprint | null> {
  try {
    const url = `${auth.addresses['authInternal']}/metrics`
    const signal = AbortSignal.timeout(1000)
    const text = await (await fetch(url, { headers: { connection: 'close' }, signal })).text()
    const sum = (name: string) =>
      [...text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'gm'))].reduce(
        (sum, [, value]) => sum + Number(value),
        0,
      )
    const descriptorsOf = (pid = 0) => readdirSync(`/proc/${pid}/fd`).length
    return {
      atS,
      authMb: residentBytes(auth.child) / 2 ** 20,
      businessMb: residentBytes(business.child) / 2 ** 20,
      descriptors: descriptorsOf(auth.child.pid) + descriptorsOf(business.child.pid),
      loopDelayMs: sum('nodejs_eventloop_lag_p99_seconds') * 1000,
      tokens: sum('latchkey_tokens'),
    }
  } catch {
    return null
  }
}

/** The median of the last fifth minus the median of the second fifth; during the first fifth the processes warm up. */
export function growthOf(footprints: Footprint[], figure: (footprint: Footprint) => number): number {
  const { length } = footprints
  const medianOf = (fifth: number) =>
    median(footprints.slice((length * fifth) / 5, (length * (fifth + 1)) / 5).map(figure))
  return medianOf(4) - medianOf(1)
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
}
