// The requests that wait for a call to Auth, in batches; all requests of a batch have the same deadline. Hides which
// requests form a batch, and how many batches fit into a call.
import type { NoVerdict, Verdict } from './contract.ts'

/** The request that needs the verdict. */
export interface Caller {
  requestId: string
  traceparent?: string | undefined
}

/** Requests that arrived within `deadlineSlackMs` of each other. */
export interface Batch {
  tokens: string[]
  /** The callers of the tokens. The call has the id of the first one. */
  callers: Caller[]
  /** The deadline of the first request; the others arrived at most `deadlineSlackMs` later and share it. */
  deadlineAt: number
  verdicts: PromiseWithResolvers<(Verdict | NoVerdict)[]>
  /** Set together with the verdicts. */
  serverTiming: string
}

export interface Batches {
  /** The number of requests that wait. */
  count(): number
  /** Adds a request at the end of the newest batch, or to a new batch, and returns that batch. */
  join(token: string, caller: Caller, deadlineAt: number): Batch
  /** The batches for one call, oldest first: as many as fit, at least one. Null if none waits. */
  takeCall(): Batch[] | null
  /** The batches whose deadline has passed. */
  takeLate(now: number): Batch[]
}

export interface BatchesOptions {
  /** Maximum number of tokens in one call, and therefore in one batch. */
  maxBatch: number
  /** How much earlier than its own deadline a request may fail, because it shares the deadline of its batch. */
  deadlineSlackMs: number
}

export function createBatches({ maxBatch, deadlineSlackMs }: BatchesOptions): Batches {
  /** Oldest first. */
  const waiting: Batch[] = []
  let count = 0

  function takeFirst(): Batch {
    const batch = waiting.shift() as Batch
    count -= batch.tokens.length
    return batch
  }

  return {
    count: () => count,

    join(token, caller, deadlineAt) {
      let batch = waiting.at(-1)
      // Do not join a batch that has waited long: its deadline would be too close for a request that has just arrived.
      if (batch === undefined || batch.tokens.length >= maxBatch || batch.deadlineAt + deadlineSlackMs < deadlineAt) {
        const verdicts = Promise.withResolvers<(Verdict | NoVerdict)[]>()
        batch = { tokens: [], callers: [], deadlineAt, verdicts, serverTiming: '' }
        waiting.push(batch)
      }
      batch.tokens.push(token)
      batch.callers.push(caller)
      count++
      return batch
    },

    // Takes every batch that fits: a new batch begins every `deadlineSlackMs`, so if each call took only one batch and
    // lasted longer than that, the queue would keep growing.
    takeCall() {
      if (waiting.length === 0) return null
      const batches = [takeFirst()]
      let size = (batches[0] as Batch).tokens.length
      while (waiting[0] && size + waiting[0].tokens.length <= maxBatch) {
        const next = takeFirst()
        batches.push(next)
        size += next.tokens.length
      }
      return batches
    },

    takeLate(now) {
      const late: Batch[] = []
      while (waiting[0] && waiting[0].deadlineAt <= now) late.push(takeFirst())
      return late
    },
  }
}
