// The limits of one token, or of one user: whether more requests were admitted than they allow, and whether they can explain an
// answer. Hides at which instants the requests may have counted. A request counts at some instant between its begin and its end.
import type { Clock } from './clock.ts'
import type { Fault, Operation, Rate } from './history.ts'
import { byBegin, byEnd, firstAbove, firstAtLeast, lastEffect } from './operations.ts'
import { createRegister } from './register.ts'

export interface Limits {
  setRate(operation: Operation, rate: Rate | null): void
  /** Adds a request that counts if it was admitted. */
  add(request: Operation): void
  /** More requests than a limit allows that were certainly admitted. */
  excesses(faults: Fault[], clock: Clock): Excess[]
  /** Whether the rate can be the reason of an answer that says `limited`. */
  canBeLimited(limited: Operation, clock: Clock): boolean
  /** Whether the last use can have been made before this refusal. */
  canBeUsedUp(refusal: Operation): boolean
}

export interface Excess {
  /** The limit, in words. */
  limit: string
  /** The change that set the limit; null if it is as old as the token. */
  change: Operation | null
  /** In the order of their ends; the last one is beyond the limit. */
  requests: [...Operation[], Operation]
}

/** A time during which the same limit certainly applied. */
interface Epoch {
  rate: Rate | null
  change: Operation | null
  sinceMs: number
  untilMs: number
}

const [before, never] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]
const rounding = 1e-6

/** `uses` is null if the number of uses has no limit. */
export function createLimits(initialRate: Rate | null, uses: number | null): Limits {
  const rates = createRegister(initialRate)
  const changes: { operation: Operation; rate: Rate | null }[] = []
  const requests: Operation[] = []
  let order: { begins: number[]; lastEffects: number[] } | null = null

  /** How many requests may have counted between the two instants. */
  function possibleBetween(fromMs: number, toMs: number): number {
    order ??= {
      begins: requests.map(({ beginMs }) => beginMs).sort((a, b) => a - b),
      lastEffects: requests.map(lastEffect).sort((a, b) => a - b),
    }
    return firstAbove(order.begins, toMs, ms => ms) - firstAtLeast(order.lastEffects, fromMs)
  }

  /** While a change is unfinished, or its outcome is unknown, no rate certainly applies. */
  function* epochs(): Generator<Epoch> {
    changes.sort((a, b) => byBegin(a.operation, b.operation))
    const begin = (i: number) => changes[i]?.operation.beginMs ?? never
    yield { rate: initialRate, change: null, sinceMs: before, untilMs: begin(0) }
    let latestEffect = before
    for (const [i, { operation, rate }] of changes.entries()) {
      const { beginMs, endMs, outcome } = operation
      if (outcome === 'ok' && latestEffect < beginMs)
        yield { rate, change: operation, sinceMs: endMs, untilMs: begin(i + 1) }
      latestEffect = Math.max(latestEffect, lastEffect(operation))
    }
  }

  const admittedIn = (admitted: Operation[], { sinceMs, untilMs }: Epoch) =>
    admitted
      .slice(
        firstAbove(admitted, sinceMs, ({ beginMs }) => beginMs),
        firstAbove(admitted, untilMs, ({ beginMs }) => beginMs),
      )
      .filter(({ endMs }) => endMs < untilMs)

  return {
    setRate(operation, rate) {
      if (operation.outcome === 'refused') return
      rates.write(operation, rate)
      changes.push({ operation, rate })
    },

    add(request) {
      if (request.outcome === 'ok' || request.outcome === 'unknown') requests.push(request)
      order = null
    },

    excesses(faults, clock) {
      const hasRate = initialRate !== null || changes.length > 0
      if (uses === null && !hasRate) return [] // most tokens
      const excesses: Excess[] = []
      const admitted = requests.filter(({ outcome }) => outcome === 'ok').sort(byBegin)
      const forgetting = faults.filter(({ losesTokens }) => losesTokens)
      const whole = { rate: null, change: null, sinceMs: before, untilMs: never }
      for (const epoch of uses === null ? [] : withoutFaults(whole, forgetting)) {
        const counted = admittedIn(admitted, epoch).sort(byEnd)
        const last = counted[uses as number]
        if (last)
          excesses.push({ limit: `${uses} uses`, change: null, requests: [...counted.slice(0, uses as number), last] })
      }
      if (!hasRate) return excesses
      const resetting = faults.filter(({ losesTokens, clockShiftMs }) => losesTokens || clockShiftMs !== 0)
      for (const whole of epochs()) {
        const { rate, change } = whole
        if (rate === null) continue
        const limit = `a rate of ${rate.perMinute} a minute, ${rate.burst} at once`
        for (const epoch of withoutFaults(whole, resetting)) {
          const beyond = beyondRate(admittedIn(admitted, epoch), rate, clock.toleranceMs)
          if (beyond) excesses.push({ limit, change, requests: beyond })
        }
      }
      return excesses
    },

    canBeLimited(limited, clock) {
      const { beginMs, endMs } = limited
      // By how much another request may have been later and yet counted first: the bucket then seems emptier by what refills meanwhile.
      const overtaken = requests.filter(other => other.beginMs <= endMs && lastEffect(other) > beginMs)
      const overtakenByMs = Math.max(0, ...overtaken.map(other => Math.min(lastEffect(other), endMs) - beginMs))
      // The bucket is full after this time without a request. A clock that was set back fills it later.
      const fullAfterMs = ({ perMinute, burst }: Rate) =>
        (burst * 60_000) / perMinute + clock.toleranceMs + clock.back(before, endMs)
      return rates.canBe(
        limited,
        rate =>
          rate !== null &&
          possibleBetween(beginMs - fullAfterMs(rate), endMs) >
            rate.burst - 1 - (overtakenByMs * rate.perMinute) / 60_000,
      )
    },

    canBeUsedUp: ({ endMs }) => uses !== null && possibleBetween(before, endMs) >= uses,
  }
}

/** The epoch without the times of faults that may have lost what was counted: after each of them counting begins anew. */
function* withoutFaults({ sinceMs, ...rest }: Epoch, faults: Fault[]): Generator<Epoch> {
  let fromMs = sinceMs
  for (const { beginMs, endMs } of faults.toSorted(byBegin)) {
    if (endMs <= fromMs || beginMs >= rest.untilMs) continue
    yield { ...rest, sinceMs: fromMs, untilMs: beginMs }
    fromMs = endMs
  }
  yield { ...rest, sinceMs: fromMs }
}

/**
 * The requests of a time span in which more requests began and ended than the rate allows in it; null if there is none. `admitted` is
 * ordered by begin.
 */
function beyondRate(admitted: Operation[], { perMinute, burst }: Rate, toleranceMs: number): Excess['requests'] | null {
  const byEnds = admitted.toSorted(byEnd)
  const [first] = byEnds
  if (first === undefined || admitted.length <= burst) return null
  const perMs = perMinute / 60_000
  const allowedIn = (fromMs: number, toMs: number) => burst + (toMs - fromMs + toleranceMs) * perMs + rounding
  const ranks = new Map(byEnds.map((request, rank) => [request, rank]))
  // The end of each request lowers the sum by what refilled since the end before, and each request that is added raises it by one.
  const sums = createPrefixSums(byEnds.map(({ endMs }, i) => ((byEnds[i - 1]?.endMs ?? endMs) - endMs) * perMs))
  for (const request of admitted.toReversed()) {
    const { beginMs } = request
    sums.raise(ranks.get(request) as number)
    if (sums.highest() <= allowedIn(beginMs, first.endMs)) continue
    const begun = byEnds.filter(one => one.beginMs >= beginMs)
    const beyond = begun.findIndex(({ endMs }, i) => i + 1 > allowedIn(beginMs, endMs))
    if (beyond >= 0) return [...begun.slice(0, beyond), begun[beyond] as Operation]
  }
  return null
}

/** Sums of the first values. A value that was raised counts one more; `highest` is the highest sum that ends with such a value. */
function createPrefixSums(values: number[]): { raise(index: number): void; highest(): number } {
  const leaves = 2 ** Math.ceil(Math.log2(Math.max(values.length, 2)))
  const sums = new Float64Array(2 * leaves)
  const highest = new Float64Array(2 * leaves).fill(Number.NEGATIVE_INFINITY)
  sums.set(values, leaves)

  function combine(node: number): void {
    const [left, right] = [2 * node, 2 * node + 1]
    const leftSum = sums[left] as number
    sums[node] = leftSum + (sums[right] as number)
    highest[node] = Math.max(highest[left] as number, leftSum + (highest[right] as number))
  }

  for (let node = leaves - 1; node > 0; node--) combine(node)
  return {
    raise(index) {
      let node = leaves + index
      sums[node] = (sums[node] as number) + 1
      highest[node] = sums[node] as number
      for (node >>= 1; node > 0; node >>= 1) combine(node)
    },
    highest: () => highest[1] as number,
  }
}
