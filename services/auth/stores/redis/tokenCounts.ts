// How many tokens Redis holds, as far as this process knows, for the limits on them. Changes by other processes are included
// after each complete sweep.

/** The number of tokens in each kind, in the order of `tokenKinds`. */
export type CountsByKind = [number, number, number]

export interface TokenCounts {
  all(): number
  guests(): number
  /** The number of tokens of each kind that the last complete sweep left. */
  byKind(): CountsByKind
  /** A token was inserted (1) or deleted (-1) by this process. `userId` is null for a guest. */
  change(by: 1 | -1, userId: string | null): void
  /** Tokens were deleted by a sweep of this process. */
  swept(all: number, guests: number): void
  /** A sweep begins. Changes that this process makes from now on may be missing from the sweep's result. */
  beginRound(): void
  /** A sweep has examined everything and left this many tokens. */
  endRound(left: CountsByKind, guests: number): void
}

const tolerated = 1000 // a recount that differs by less is ignored, because SCAN returns some keys twice

export function createTokenCounts(): TokenCounts {
  let all = 0
  let guests = 0
  let changes = 0
  let byKind: CountsByKind = [0, 0, 0]

  // This process's own changes during the sweep explain a difference up to `changes`; anything beyond that was done by
  // other processes.
  const corrected = (known: number, counted: number) =>
    Math.abs(counted - known) > changes + tolerated ? counted : known

  return {
    all: () => all,
    guests: () => guests,
    byKind: () => byKind,

    change(by, userId) {
      all += by
      if (userId === null) guests += by
      changes++
    },

    swept(removed, removedGuests) {
      all -= removed
      guests -= removedGuests
    },

    beginRound() {
      changes = 0
    },

    endRound(left, leftGuests) {
      all = corrected(all, left[0] + left[1] + left[2])
      guests = corrected(guests, leftGuests)
      byKind = left
    },
  }
}
