// What the users of the memory store may do, by the number of the user. It is in a map, because most users have no authority.
import { type Authority, noAuthority } from '../ports.ts'

export interface Authorities {
  of(user: number): Authority
  set(user: number, authority: Authority): void
  delete(user: number): void
}

export function createAuthorities(): Authorities {
  const authorities = new Map<number, Authority>()
  // Each touch asks, and looking up a number in an empty map takes longer than this comparison.
  const of = (user: number): Authority =>
    authorities.size === 0 ? noAuthority : (authorities.get(user) ?? noAuthority)
  return {
    of,
    delete: user => void authorities.delete(user),
    set: (user, authority) => void authorities.set(user, authority),
  }
}
