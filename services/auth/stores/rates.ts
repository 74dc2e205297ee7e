// How stores keep a rate: a bucket that holds `burst` touches and refills at `perMinute`. Redis computes the same in library.ts.
import type { Rate } from './tokenPort.ts'

/** All that is known about a bucket is when it will be full, in epoch microseconds. It is full if that is past. */
export interface Bucket {
  rate: Rate
  fullAtUs: number
}

const refillUs = ({ perMinute }: Rate): number => Math.ceil(60_000_000 / perMinute)

/** Takes one from each bucket, or from none if one of them is empty. Returns 0, or the milliseconds until none is empty. */
export function takeFrom(buckets: Bucket[], now: number): number {
  const waitsUs = buckets.map(({ rate, fullAtUs }) => {
    const isFullInUs = Math.max(fullAtUs - now * 1000, 0)
    return isFullInUs + refillUs(rate) - rate.burst * refillUs(rate)
  })
  const waitUs = Math.max(0, ...waitsUs)
  if (waitUs > 0) return Math.ceil(waitUs / 1000)
  for (const bucket of buckets) bucket.fullAtUs = Math.max(bucket.fullAtUs, now * 1000) + refillUs(bucket.rate)
  return 0
}

export function isSameRate(one: Rate | null, other: Rate | null): boolean {
  return one?.perMinute === other?.perMinute && one?.burst === other?.burst
}

/** `perMinute` and `burst` in one text, as the SQL stores and Redis keep them. */
export const packedRate = ({ perMinute, burst }: Rate): string => `${perMinute}/${burst}`

export function unpackedRate(text: string): Rate {
  const [perMinute = 0, burst = 0] = text.split('/').map(Number)
  return { perMinute, burst }
}
