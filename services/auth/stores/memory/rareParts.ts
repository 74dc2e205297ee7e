// What few tokens of the memory store have, by slot. It is in maps, so that it takes no room in the other tokens.

/** The hash of the lineage, truncated like other hashes, and when the token was last renewed. */
export interface Renewal {
  lineage: string
  renewedAt: number
}

export interface RareParts {
  /** `loginId`, if that is not the value of `usualLogin`. */
  logins: Map<number, string | null>
  /** Of renewed tokens only. */
  renewals: Map<number, Renewal>
}

export function createRareParts(): RareParts {
  return { logins: new Map(), renewals: new Map() }
}
