// The metrics of several processes that share a port. A scrape reaches any one of them, so it asks the process that started
// them for the sum; see commands/start/metricsSum.ts. Hides the messages.
import cluster from 'node:cluster'
import type { MetricObjectWithValues, MetricValue } from '@prometheus-io/client'
import { AppError } from './http/errors.ts'

/** A metric with all its series. */
export type MetricFamily = MetricObjectWithValues<MetricValue<string>>

/** A worker sends `sum_wanted`, every worker is sent `metrics_wanted` and sends `metrics`, and the first one is sent `sum`. */
export type MetricsMessage =
  | { type: 'sum_wanted' | 'metrics_wanted'; id: number }
  /** Without an id they are the last ones of a worker that closes. */
  | { type: 'metrics'; id?: number; families: MetricFamily[] }
  | { type: 'sum'; id: number; text: string }

const sumTimeoutMs = 5000 // the parent itself waits a second for a process that stands still
const noSum = 'The process that started this one does not add up the metrics.'

type ReadMetrics = () => Promise<MetricFamily[]>

let readOwn: ReadMetrics | null = null
let scrapes = 0
const scraping = new Map<number, (text: string) => void>()

/** Answers for this process when another one is scraped. Does nothing in a process that shares no port. */
export function shareMetrics(read: ReadMetrics): void {
  if (!cluster.isWorker || readOwn !== null) return
  readOwn = read
  process.on('message', (message: MetricsMessage) => {
    if (message.type === 'metrics_wanted') void sendOwn(message.id)
    if (message.type === 'sum') scraping.get(message.id)?.(message.text)
  })
}

/**
 * Resolves to the text format of the sum over all processes; null in a process that shares no port. Rejects with `unavailable` if
 * there is no sum after `timeoutMs`: the parent stands still, or is another program, such as a process manager, that knows no metrics.
 */
export async function readSum(timeoutMs = sumTimeoutMs): Promise<string | null> {
  if (readOwn === null || !process.connected) return null
  const id = ++scrapes
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  scraping.set(id, resolve)
  const late = setTimeout(() => reject(new AppError('unavailable', noSum)), timeoutMs)
  void send({ type: 'sum_wanted', id })
  try {
    return await promise
  } finally {
    clearTimeout(late)
    scraping.delete(id)
  }
}

/** Call when the service has closed: what it has counted since the last scrape stays in the sum. */
export async function sendLastMetrics(): Promise<void> {
  if (readOwn !== null && process.connected) await sendOwn()
}

/** If the metrics cannot be read, sends nothing, and the sum has those that were sent before. */
async function sendOwn(id?: number): Promise<void> {
  const families = await readOwn?.().catch(() => null)
  if (families) await send({ type: 'metrics', ...(id !== undefined && { id }), families })
}

/** Resolves even if the parent has ended meanwhile. */
async function send(message: MetricsMessage): Promise<void> {
  await new Promise<void>(resolve => process.send?.(message, undefined, undefined, () => resolve()))
}
