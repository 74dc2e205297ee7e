// Runs the clients without faults for a long time and measures the resources of the processes.

import { createRandom } from '../tests/support/random.ts'
import { type DriveResult, drive } from './drive.ts'
import { growthOf } from './footprint.ts'
import type { StoreName } from './pair.ts'

export interface SoakResult {
  minutes: number
  drive: DriveResult
  growth: { authMb: number; businessMb: number; descriptors: number; tokens: number }
}

const footprints = 300

export async function soak(
  storeName: StoreName,
  minutes: number,
  seed: number,
  tell: (what: string) => void,
): Promise<SoakResult> {
  const seconds = minutes * 60
  const result = await drive({
    storeName,
    seed,
    random: createRandom(seed),
    seconds,
    kinds: [],
    footprintEveryMs: Math.max(500, (seconds * 1000) / footprints),
    tell: () => tell(`${minutes} minutes`),
  })
  const growth = (name: 'authMb' | 'businessMb' | 'descriptors' | 'tokens') =>
    growthOf(result.footprints, of => of[name])
  return {
    minutes,
    drive: result,
    growth: {
      authMb: growth('authMb'),
      businessMb: growth('businessMb'),
      descriptors: growth('descriptors'),
      tokens: growth('tokens'),
    },
  }
}
