// Login storms: their effect on validations, the length of the hash queue, and whether clients that disconnect leave it.
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent } from 'undici'
import { demo, serviceKey } from '../tests/support/credentials.ts'
import { startPair } from './pair.ts'

export interface StormResult {
  /** The latency of validations at a steady rate. */
  calmP99Ms: number
  stormP99Ms: number
  validations: number
  /** Validations without a verdict. */
  failed: number
  loginsPerSecond: number
  /** Concurrent logins. */
  burst: { logins: number; byStatus: Record<string, number>; slowest503Ms: number; longestQueue: number }
  /** Logins whose clients disconnected, and how many were queued just before and a quarter of a second later. */
  aborted: { logins: number; queuedBefore: number; queuedAfter: number }
}

const perSecond = 100
const stormers = 16

export async function measureStorm(
  rounds: number,
  seconds: number,
  tell: (what: string) => void,
): Promise<StormResult> {
  const pair = await startPair({
    storeName: 'memory',
    env: { TOKEN_TTL_SECONDS: '600', TOKEN_ABSOLUTE_TTL_SECONDS: '600', TOKEN_LIMIT_PER_USER: '1000000' },
  })
  const agent = new Agent({ connections: 300, pipelining: 1 })
  const auth = `${pair.auth.addresses['auth']}`
  const internal = `${pair.auth.addresses['authInternal']}`
  const json = { 'content-type': 'application/json' }
  let failed = 0

  async function logIn(credentials = demo, signal?: AbortSignal) {
    const beginMs = performance.now()
    const body = JSON.stringify(credentials)
    const request = { origin: auth, path: '/login', method: 'POST', headers: json, body } as const
    const answer = await agent.request({ ...request, ...(signal && { signal }) })
    const text = await answer.body.text()
    return { status: answer.statusCode, text, tookMs: performance.now() - beginMs }
  }

  async function validate(token: string): Promise<number> {
    const beginMs = performance.now()
    const headers = { ...json, authorization: `Bearer ${serviceKey}` }
    const body = JSON.stringify({ token })
    const answer = await agent.request({ origin: internal, path: '/validateToken', method: 'POST', headers, body })
    if (!(await answer.body.text()).includes('"authenticated":true')) failed++
    return performance.now() - beginMs
  }

  async function queued(): Promise<number> {
    const answer = await agent.request({ origin: internal, path: '/metrics', method: 'GET' })
    return Number(/^latchkey_hash_queue_length (\d+)$/m.exec(await answer.body.text())?.[1])
  }

  /** A different unknown user each time, which costs one hash. */
  let strangers = 0
  const stranger = () => ({ username: `stranger-${strangers++}@example.com`, password: 'walrus tundra gherkin plinth' })

  try {
    const { token } = JSON.parse((await logIn()).text) as { token: string }
    const at = (times: number[], share: number) =>
      times.toSorted((a, b) => a - b)[Math.floor(share * (times.length - 1))] as number
    const measure = async () => {
      const asked: Promise<number>[] = []
      const beginMs = performance.now()
      for (let i = 0; i < seconds * perSecond; i++) {
        const waitMs = beginMs + (i * 1000) / perSecond - performance.now()
        if (waitMs > 0) await sleep(waitMs)
        asked.push(validate(token))
      }
      return Promise.all(asked)
    }

    await measure() // warm-up
    const [calm, storm]: [number[], number[]] = [[], []]
    let logins = 0
    for (let round = 1; round <= rounds; round++) {
      tell(`round ${round} of ${rounds}, calm`)
      calm.push(...(await measure()))
      tell(`round ${round} of ${rounds}, storm`)
      let storming = true
      const storms = Array.from({ length: stormers }, async (_, i) => {
        while (storming) if ((await logIn(i % 2 === 0 ? demo : stranger())).status < 429) logins++
      })
      await sleep(300)
      storm.push(...(await measure()))
      storming = false
      await Promise.all(storms)
    }

    tell('a burst of log-ins')
    const burst = 200
    const [byStatus, lengths]: [Record<string, number>, number[]] = [{}, []]
    let watching = true
    const watch = (async () => {
      for (; watching; await sleep(20)) lengths.push(await queued())
    })()
    const answers = await Promise.all(Array.from({ length: burst }, () => logIn(stranger())))
    watching = false
    await watch
    for (const { status } of answers) byStatus[status] = (byStatus[status] ?? 0) + 1
    const refused = answers.filter(({ status }) => status === 503).map(({ tookMs }) => tookMs)

    tell('log-ins that disconnect')
    const leaving = new AbortController()
    const gone = Array.from({ length: 30 }, () => logIn(stranger(), leaving.signal).catch(() => {}))
    await sleep(300)
    const queuedBefore = await queued()
    leaving.abort()
    await Promise.all(gone)
    await sleep(250)
    return {
      calmP99Ms: at(calm, 0.99),
      stormP99Ms: at(storm, 0.99),
      validations: calm.length + storm.length,
      failed,
      loginsPerSecond: logins / (rounds * (seconds + 0.3)),
      burst: { logins: burst, byStatus, slowest503Ms: Math.max(0, ...refused), longestQueue: Math.max(...lengths) },
      aborted: { logins: gone.length, queuedBefore, queuedAfter: await queued() },
    }
  } finally {
    await agent.destroy()
    await pair.close()
  }
}
