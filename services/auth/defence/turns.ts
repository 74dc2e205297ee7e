// Turns of what is limited by name, such as log-ins to one account. Hides the lines in which the others wait.
import type { AppError } from '../../../shared/http/errors.ts'

/** Works of the same key begin in turn, `width` at a time. If too many wait, the next one is refused with `whenFull`. */
export function createTurns(width: number, maxWaiting: number) {
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
