// What has ended or changed the secret of a token in the last ten minutes. After a failover it is repeated, because the new
// server may lack the last writes: an acknowledged revocation then holds even if no replica had it.
import type { Script } from './connection.ts'

export type Args = (string | number | Buffer)[]

interface Entry {
  script: Script
  key: string
  args: Args
}

export interface Journal {
  add(key: string, script: Script, args: Args): void
  /** Repeats the entries, for each key in their order. Resolves to their number; rejects if one cannot be repeated. */
  replay(send: (script: Script, keys: string[], args: Args) => Promise<unknown>): Promise<number>
  close(): void
}

const keptMs = 10 * 60_000 // far longer than a replica should be behind
const maxEntries = 50_000 // about 15 MB; twice as many are kept
const inFlight = 500

export function createJournal(): Journal {
  let older: Entry[] = []
  let newer: Entry[] = []

  /** An entry is kept for `keptMs` to twice that, or less if there are very many. */
  function forgetOlder(): void {
    older = newer
    newer = []
  }

  const timer = setInterval(forgetOlder, keptMs).unref()

  return {
    add(key, script, args) {
      newer.push({ script, key, args })
      if (newer.length >= maxEntries) forgetOlder()
    },

    async replay(send) {
      const entries = [...older, ...newer]
      for (let i = 0; i < entries.length; i += inFlight) {
        await Promise.all(entries.slice(i, i + inFlight).map(({ script, key, args }) => send(script, [key], args)))
      }
      return entries.length
    },

    close: () => clearInterval(timer),
  }
}
