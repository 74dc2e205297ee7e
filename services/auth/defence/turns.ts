// Runs tasks with the same key, such as log-ins to one account, in turn. Hides the queues.
import type { AppError } from '../../../shared/http/errors.ts'

export interface Turns {
  /** Waits for the turn, then runs `work`. If too many tasks wait already, throws what `whenFull` returns. */
  <T>(key: string, whenFull: () => Promise<AppError>, work: () => Promise<T>): Promise<T>
  /** Whether the next task of this key would be refused. */
  isFull(key: string): boolean
}

/** At most `width` tasks per key run at a time, in order of arrival. */
export function createTurns(width: number, maxWaiting: number): Turns {
  const lines = new Map<string, { underWay: number; waiting: (() => void)[] }>()

  function isFull(key: string): boolean {
    const line = lines.get(key)
    return line !== undefined && line.underWay >= width && line.waiting.length >= maxWaiting
  }

  async function inTurn<T>(key: string, whenFull: () => Promise<AppError>, work: () => Promise<T>): Promise<T> {
    if (isFull(key)) throw await whenFull()
    const line = lines.get(key) ?? { underWay: 0, waiting: [] }
    lines.set(key, line)
    if (line.underWay < width) line.underWay++
    else await new Promise<void>(resolve => line.waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = line.waiting.shift()
      if (next) next()
      else if (--line.underWay === 0) lines.delete(key)
    }
  }

  return Object.assign(inTurn, { isFull })
}
