// What few tokens of the memory store have, by slot. It is in maps, so that it takes no room in the other tokens.
import { type Bucket, isSameRate } from '../rates.ts'
import type { Parent, TokenChanges, TokenRecord } from '../tokenPort.ts'

/** The hash of the lineage, truncated like other hashes, and when the token was last renewed. */
export interface Renewal {
  lineage: string
  renewedAt: number
}

/** The limits of one token. */
export interface OwnLimits {
  bucket: Bucket | null
  usesLeft: number | null
}

export interface RareParts {
  /** `loginId`, if that is not the value of `usualLogin`. */
  logins: Map<number, string | null>
  /** Of renewed tokens only. */
  renewals: Map<number, Renewal>
  /** Of tokens with a rate or a number of uses only. */
  limits: Map<number, OwnLimits>
  names: Map<number, string>
  /** The ids of the parents of delegated tokens. */
  parents: Map<number, string>
}

export function createRareParts(): RareParts {
  return { logins: new Map(), renewals: new Map(), limits: new Map(), names: new Map(), parents: new Map() }
}

/** Sets what `changes` names, and keeps the rest. */
export function changeLimits(
  { limits }: RareParts,
  slot: number,
  { rate, usesLeft }: Pick<TokenChanges, 'rate' | 'usesLeft'>,
): void {
  const known: OwnLimits = limits.get(slot) ?? { bucket: null, usesLeft: null }
  const isSame = rate === undefined || isSameRate(rate, known.bucket?.rate ?? null)
  const changed: OwnLimits = {
    bucket: isSame ? known.bucket : rate && { rate, fullAtUs: 0 },
    usesLeft: usesLeft === undefined ? known.usesLeft : usesLeft,
  }
  if (changed.bucket === null && changed.usesLeft === null) limits.delete(slot)
  else limits.set(slot, changed)
}

export function setName({ names }: RareParts, slot: number, name: string | null): void {
  if (name === null) names.delete(slot)
  else names.set(slot, name)
}

export function setParent({ parents }: RareParts, slot: number, parent: Pick<Parent, 'id'> | null): void {
  if (parent !== null) parents.set(slot, parent.id)
}

export function addRareParts(
  rare: RareParts,
  slot: number,
  token: Pick<TokenRecord, 'rate' | 'usesLeft' | 'name' | 'parent'>,
): void {
  changeLimits(rare, slot, token)
  setName(rare, slot, token.name)
  setParent(rare, slot, token.parent)
}

/** See `isHeldByProgram` of the port. */
export function isHeldByProgramAt({ names, parents }: RareParts, slot: number): boolean {
  return names.has(slot) || parents.has(slot)
}

export function limitsOf({ limits }: RareParts, slot: number): Pick<TokenRecord, 'rate' | 'usesLeft'> {
  const own = limits.get(slot)
  return { rate: own?.bucket?.rate ?? null, usesLeft: own?.usesLeft ?? null }
}
