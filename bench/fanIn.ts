// Many services that ask one Auth. Auth sees only connections and calls, so a service is a client of packages/client, and
// up to four processes share the clients: 64 processes on a few cores would measure their scheduling.
import { once } from 'node:events'
import type { LoadResult } from './load.ts'
import { type Running, start } from './processes.ts'
import type { Row } from './rounds.ts'

/**
 * Of all clients together: requests at a fixed rate, or a fixed number of requests that wait at any time, so that Auth is
 * saturated.
 */
export type FanInLoad = { perSecond: number } | { waiting: number }

/** What a process with clients is asked to do: its share of the load. */
export type Ask = FanInLoad & { seconds: number }

export interface Outcome {
  /** Milliseconds. */
  latencies: number[]
  errors: number
}

const maxProcesses = 4

export async function openFanIn(
  clients: number,
  name: string,
  auth: Running,
  tokens: string[],
  counts: NonNullable<Row['counts']>,
): Promise<Row<FanInLoad>> {
  const count = Math.min(clients, maxProcesses)
  const processes: Running[] = []
  for (let i = 0; i < count; i++) {
    processes.push(
      await start('bench/clients.ts', {
        AUTH_INTERNAL_URL: `${auth.addresses['authInternal']}`,
        CLIENTS: String(clients / count),
        TOKENS: JSON.stringify(tokens),
      }),
    )
  }

  async function drive(load: FanInLoad, seconds: number): Promise<LoadResult> {
    const share = 'perSecond' in load ? { perSecond: load.perSecond / count } : { waiting: load.waiting / count }
    const ask: Ask = { ...share, seconds }
    const startedAt = performance.now()
    const outcomes = await Promise.all(
      processes.map(async ({ process }): Promise<Outcome> => {
        process.send(ask)
        const [outcome] = (await once(process, 'message')) as [Outcome]
        return outcome
      }),
    )
    const elapsed = (performance.now() - startedAt) / 1000
    const latencies = Float64Array.from(outcomes.flatMap(outcome => outcome.latencies)).sort()
    const at = (share: number) => latencies[Math.floor(share * (latencies.length - 1))] ?? Number.NaN
    return {
      requests: latencies.length,
      perSecond: latencies.length / elapsed,
      p50: at(0.5),
      p99: at(0.99),
      max: at(1),
      errors: outcomes.reduce((sum, { errors }) => sum + errors, 0),
    }
  }

  return {
    name,
    drive,
    async check() {
      const { errors } = await drive({ waiting: clients }, 0.2)
      if (errors > 0) throw new Error(`${name}: Auth gave ${errors} wrong verdicts`)
    },
    pids: () => [auth.pid],
    counts,
  }
}
