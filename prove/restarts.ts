// Counts the requests that are lost while ./startServer replaces its processes (SIGHUP) or stops them all (SIGTERM). A request
// is lost if it was accepted but not answered with 200.
import { Agent } from 'undici'
import { logIn } from '../tests/support/factories.ts'
import { runStartServer } from '../tests/support/startServer.ts'
import { freshPlace, schemesHere } from '../tests/support/stores.ts'
import { until } from '../tests/support/until.ts'
import { clientCount } from './clients.ts'

export interface RestartResult {
  what: string
  times: number
  requests: number
  /** Requests without any response. */
  lost: number
  /** Responses other than 200, by status. */
  otherStatuses: Record<string, number>
  /** The longest duration of a request. */
  slowestMs: number
}

/** Skips the rolling restarts, and prints why, if Redis is missing. */
export async function measureRestarts(times: number, tell: (what: string) => void): Promise<RestartResult[]> {
  const results: RestartResult[] = []
  const ends: Counts[] = []
  if ((await schemesHere(['redis'])).length > 0) {
    tell('SIGHUP, two processes of each service')
    const [users, tokens] = [await freshPlace('sqlite'), await freshPlace('redis')]
    const stores = { USER_STORE_URL: users.url, TOKEN_STORE_URL: tokens.url }
    const run = await start({ ...stores, AUTH_WORKERS: '2', WEB_CONCURRENCY: '2' })
    const load = await drive(run.addresses)
    for (let i = 1; i <= times; i++) {
      run.process.kill('SIGHUP')
      await until(() => run.stdout().split('"event":"workers_replaced"').length > i, 60_000)
    }
    await load.stop()
    results.push(resultOf('Rolling restart (SIGHUP), two processes of each service', times, [load.counts]))
    const last = await drive(run.addresses)
    run.process.kill('SIGTERM')
    await run.ended
    await last.stop()
    results.push(resultOf('All processes are stopped (SIGTERM), two of each service', 1, [last.counts]))
    await users.remove()
    await tokens.remove()
  }
  for (let i = 1; i <= times; i++) {
    tell(`SIGTERM ${i} of ${times}`)
    const run = await start({})
    const load = await drive(run.addresses)
    run.process.kill('SIGTERM')
    if ((await run.ended) !== 0) throw new Error('./startServer did not end with 0 on SIGTERM')
    await load.stop()
    ends.push(load.counts)
  }
  results.push(resultOf('Both services are stopped (SIGTERM)', times, ends))
  return results
}

async function start(env: Record<string, string>) {
  const run = runStartServer({ env: { ACCESS_LOG: 'off', LOG_LEVEL: 'info', ...env } })
  return { ...run, addresses: await run.ready }
}

interface Counts {
  statuses: Map<number, number>
  lost: number
  slowestMs: number
}

/** Resolves when the clients are running. They continue until `stop`, or until connections are refused. */
async function drive({ auth, business }: { auth: string; business: string }) {
  // The clients close connections that stay unused for 400 ms, less than half of the lame-duck time; see recorder.ts.
  const keepAlive = { keepAliveTimeout: 400, keepAliveMaxTimeout: 400 }
  const agent = new Agent({ connections: clientCount, pipelining: 1, headersTimeout: 10_000, ...keepAlive })
  const counts: Counts = { statuses: new Map(), lost: 0, slowestMs: 0 }
  let stopped = false
  let reportWorking: () => void = () => {}
  const client = async (token: string) => {
    while (!stopped) {
      const beginMs = performance.now()
      try {
        const answer = await agent.request({ origin: business, path: '/data', method: 'GET', headers: { token } })
        await answer.body.text()
        counts.statuses.set(answer.statusCode, (counts.statuses.get(answer.statusCode) ?? 0) + 1)
      } catch (error) {
        // If the connection is refused, the service has stopped; a request that was never accepted is not lost.
        if ((error as { code?: string }).code === 'ECONNREFUSED') return
        counts.lost++
      }
      counts.slowestMs = Math.max(counts.slowestMs, performance.now() - beginMs)
      if (answeredOf(counts) > 200) reportWorking()
    }
  }
  const tokens = await Promise.all(Array.from({ length: clientCount }, () => logIn(auth)))
  const atWork = new Promise<void>(resolve => {
    reportWorking = resolve
  })
  const clients = Promise.all(tokens.map(client))
  await atWork
  return {
    counts,
    async stop() {
      stopped = true
      await clients
      await agent.destroy()
    },
  }
}

const answeredOf = ({ statuses }: Counts) => [...statuses.values()].reduce((sum, count) => sum + count, 0)

function resultOf(what: string, times: number, all: Counts[]): RestartResult {
  const otherStatuses: Record<string, number> = {}
  for (const { statuses } of all) {
    for (const [status, count] of statuses) {
      if (status !== 200) otherStatuses[status] = (otherStatuses[status] ?? 0) + count
    }
  }
  const lost = all.reduce((sum, counts) => sum + counts.lost, 0)
  const requests = all.reduce((sum, counts) => sum + answeredOf(counts), lost)
  return { what, times, requests, lost, otherStatuses, slowestMs: Math.max(...all.map(({ slowestMs }) => slowestMs)) }
}
