// The queue for the connections of a pool. If none comes back, calls are refused at once instead of waiting in vain until
// their deadline. While they do come back, however slowly, calls wait.

export interface ConnectionQueue {
  /** Resolves when a connection is free. Rejects at once if too many calls wait, or if the connections are stuck. */
  enter(): Promise<void>
  /** Call it when the connection is free again. */
  leave(): void
}

interface Limits {
  connections: number
  maxWaiting: number
  maxWaitMs: number
  /** The connections count as stuck if a call waits and none has come back for so long. */
  stuckAfterMs: number
}

interface Waiting {
  admit: () => void
  refuse: () => void
  timer: NodeJS.Timeout
}

export function createConnectionQueue({ connections, maxWaiting, maxWaitMs, stuckAfterMs }: Limits): ConnectionQueue {
  let used = 0
  let isStuck = false
  let waiting: Waiting[] = []
  let stuckTimer: NodeJS.Timeout | null = null

  const refusal = () => new Error(`all ${connections} connections to the database are in use`)

  function refuseAll(): void {
    isStuck = true
    const refused = waiting
    waiting = []
    for (const { refuse } of refused) refuse()
  }

  function watch(): void {
    if (stuckTimer) clearTimeout(stuckTimer)
    stuckTimer = waiting.length === 0 ? null : setTimeout(refuseAll, stuckAfterMs)
  }

  return {
    async enter() {
      if (used < connections) {
        used++
        return
      }
      if (isStuck || waiting.length >= maxWaiting) throw refusal()
      await new Promise<void>((resolve, reject) => {
        const refuse = () => {
          clearTimeout(call.timer)
          reject(refusal())
        }
        const admit = () => {
          clearTimeout(call.timer)
          resolve()
        }
        const timer = setTimeout(() => {
          waiting = waiting.filter(other => other !== call)
          refuse()
        }, maxWaitMs)
        const call = { admit, refuse, timer }
        waiting.push(call)
        if (waiting.length === 1) watch()
      })
    },

    leave() {
      isStuck = false
      const next = waiting.shift()
      if (next === undefined) used--
      else next.admit()
      watch()
    },
  }
}
