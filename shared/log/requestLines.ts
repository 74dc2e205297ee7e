// One short line per request for a developer who watches a terminal. Shows the user, whom the log never names. Hides which requests
// are not worth a line, and what happens if there are more than a person can read.
import { styleText } from 'node:util'
import type { RequestFields } from './log.ts'

export interface RequestLinesOptions {
  service: string
  /** Writes one line. Returns false if the terminal is too slow for it. */
  write: (line: string) => boolean
  /** Decides whether lines have colors, as `isTTY` and NO_COLOR say. */
  stream: NodeJS.WritableStream
  /** Monotonic milliseconds. */
  monotonicNow: () => number
}

export type ShowRequest = (fields: RequestFields, user: string | null) => void

// Calls of Business, probes, and the files that a page loads.
const quietPaths = /^\/(health|ready|metrics|validateToken|console\/.+|docs\/.+)$/
const windowMs = 1000
const maxPerWindow = 25
const maxPathLength = 80

export function createRequestLines({ service, write, stream, monotonicNow }: RequestLinesOptions): ShowRequest {
  let endsAt = 0
  let shown = 0
  let left = 0
  const paint = (format: Parameters<typeof styleText>[0], text: string) => styleText(format, text, { stream })
  const prefix = paint('dim', service.padEnd(8))

  /** At the end of each second with too many requests. */
  function showCount(): void {
    write(`${prefix} ${paint('dim', `… ${left} more ${left === 1 ? 'request' : 'requests'}, see the log`)}\n`)
    left = 0
  }

  return ({ method, path, status, durationMs }, user) => {
    if (quietPaths.test(path)) return
    const now = monotonicNow()
    if (now >= endsAt) {
      endsAt = now + windowMs
      shown = 0
    }
    const time = `${durationMs < 10 ? durationMs.toFixed(1) : Math.round(durationMs)} ms`
    const what = `${method} ${printable(path)} ${paint(colorOf(status), String(status))} ${paint('dim', time)}`
    const line = `${prefix} ${what}${user === null ? '' : ` ${printable(user)}`}\n`
    if (shown < maxPerWindow && write(line)) {
      shown++
      return
    }
    if (left === 0) setTimeout(showCount, endsAt - now).unref()
    left++
  }
}

function colorOf(status: number): 'green' | 'cyan' | 'yellow' | 'red' {
  if (status < 300) return 'green'
  if (status < 400) return 'cyan'
  return status < 500 ? 'yellow' : 'red'
}

/** Control characters in a path or a username would control the terminal. */
function printable(text: string): string {
  const short = text.length > maxPathLength ? `${text.slice(0, maxPathLength)}…` : text
  return short.replace(/[\p{C}\p{Z}]/gu, '?')
}
