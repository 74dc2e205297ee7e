// A process with CLIENTS clients of Auth, each with its own connections, as in as many processes of Business. Started by
// fanIn.ts, which asks for a load and gets what became of it.
import { Worker } from 'node:worker_threads'
import { openAuthClient } from '../packages/client/authClient.ts'
import { createLog } from '../shared/log/log.ts'
import { openOutput } from '../shared/log/output.ts'
import type { Ask, Outcome } from './fanIn.ts'

const { AUTH_INTERNAL_URL = '', SERVICE_KEY = '', CLIENTS = '1', TOKENS = '[]' } = process.env
const tokens = JSON.parse(TOKENS) as string[]
const log = createLog({ service: 'bench', level: 'warn', stream: openOutput(process.stdout) })
const monotonicNow = () => performance.now()
const clients = Array.from({ length: Number(CLIENTS) }, () =>
  openAuthClient({ url: AUTH_INTERNAL_URL, key: SERVICE_KEY, log, monotonicNow }),
)

process.on('disconnect', () => process.exit())
process.on('message', (ask: Ask) => void run(ask).then(outcome => process.send?.(outcome)))
process.send?.({ type: 'ready', addresses: {} })

async function run(ask: Ask): Promise<Outcome> {
  const outcome: Outcome = { latencies: [], errors: 0 }
  let [sent, open] = [0, 0]

  async function validate(client: number): Promise<void> {
    open++
    const startedAt = performance.now()
    const token = tokens[sent++ % tokens.length] as string
    try {
      const { verdict } = await (clients[client] as (typeof clients)[number]).validate(token, { requestId: 'bench' })
      if (!verdict.authenticated) outcome.errors++
    } catch {
      outcome.errors++
    }
    outcome.latencies.push(performance.now() - startedAt)
    open--
  }

  if ('perSecond' in ask) {
    const arrivals = new Worker(new URL('./arrivals.ts', import.meta.url), { workerData: ask })
    arrivals.on('message', () => void validate(Math.floor(Math.random() * clients.length)))
    await new Promise(resolve => arrivals.once('exit', resolve))
    while (open > 0) await new Promise(resolve => setTimeout(resolve, 1))
    return outcome
  }
  const endsAt = performance.now() + ask.seconds * 1000
  const askAgain = async (client: number) => {
    while (performance.now() < endsAt) await validate(client)
  }
  await Promise.all(Array.from({ length: ask.waiting }, (_, i) => askAgain(i % clients.length)))
  return outcome
}
