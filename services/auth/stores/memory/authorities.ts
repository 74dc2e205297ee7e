// What the users of the memory store may do, by the number of the user. It is in a map, because most users have no authority.
import { type Bucket, isSameRate } from '../rates.ts'
import { type Authority, noAuthority } from '../tokenPort.ts'

export interface Authorities {
  of(user: number): Authority
  /** Null if the user has no rate. */
  bucketOf(user: number): Bucket | null
  set(user: number, authority: Authority): void
  delete(user: number): void
}

interface Entry {
  authority: Authority
  bucket: Bucket | null
}

export function createAuthorities(): Authorities {
  const entries = new Map<number, Entry>()
  // Each touch asks, and looking up a number in an empty map takes longer than this comparison.
  const entryOf = (user: number): Entry | undefined => (entries.size === 0 ? undefined : entries.get(user))
  return {
    of: user => entryOf(user)?.authority ?? noAuthority,
    bucketOf: user => entryOf(user)?.bucket ?? null,
    delete: user => void entries.delete(user),

    set(user, authority) {
      const known = entries.get(user)
      const { rate } = authority
      const bucket = known && isSameRate(known.authority.rate, rate) ? known.bucket : rate && { rate, fullAtUs: 0 }
      entries.set(user, { authority, bucket })
    },
  }
}
