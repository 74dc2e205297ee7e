// The queue for the connections of a pool. A call that cannot expect one is refused at once, instead of waiting in vain
// until its deadline.

export interface ConnectionQueue {
  /** Resolves when a connection is free. Rejects at once if too many calls wait, or if no connection came back in time. */
  enter(): Promise<void>
  /** Call it when the connection is free again. */
  leave(): void
}

interface Limits {
  connections: number
  maxWaiting: number
  maxWaitMs: number
}

interface Waiting {
  admit: () => void
  timer: NodeJS.Timeout
}

export function createConnectionQueue({ connections, maxWaiting, maxWaitMs }: Limits): ConnectionQueue {
  let used = 0
  let isStuck = false // a call has waited in vain, and no connection has come back since
  const waiting: Waiting[] = []

  const refusal = () => new Error(`all ${connections} connections to the database are in use`)

  return {
    async enter() {
      if (used < connections) {
        used++
        return
      }
      if (isStuck || waiting.length >= maxWaiting) throw refusal()
      await new Promise<void>((admit, reject) => {
        const timer = setTimeout(() => {
          waiting.splice(waiting.indexOf(call), 1)
          isStuck = true
          reject(refusal())
        }, maxWaitMs)
        const call = { admit, timer }
        waiting.push(call)
      })
    },

    leave() {
      isStuck = false
      const next = waiting.shift()
      if (next === undefined) {
        used--
        return
      }
      clearTimeout(next.timer)
      next.admit()
    },
  }
}
