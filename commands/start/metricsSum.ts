// Adds up the metrics of a service's workers for the one that is scraped. Keeps the counts of workers that have ended: Prometheus
// takes a falling sum for a restart, and would count what remains as new requests.
import type { ChildProcess } from 'node:child_process'
import { Registry } from '@prometheus-io/client'
import type { MetricFamily, MetricsMessage } from '../../shared/workerMetrics.ts'

const answerTimeoutMs = 1000 // a worker that hangs must not hide the metrics of the others

export interface MetricsSum {
  /** Call when a worker listens. */
  add(worker: ChildProcess): void
}

export function createMetricsSum(): MetricsSum {
  /** What each worker has sent last. */
  const last = new Map<ChildProcess, MetricFamily[]>()
  let ended: MetricFamily[] = []
  let requests = 0
  const waiting = new Map<number, () => void>()

  /** Resolves when the worker has sent its metrics, and after `answerTimeoutMs` at the latest. */
  async function refresh(worker: ChildProcess): Promise<void> {
    const id = ++requests
    const { promise, resolve } = Promise.withResolvers<void>()
    const late = setTimeout(resolve, answerTimeoutMs)
    waiting.set(id, resolve)
    send(worker, { type: 'metrics_wanted', id })
    await promise
    clearTimeout(late)
    waiting.delete(id)
  }

  async function answer(worker: ChildProcess, id: number): Promise<void> {
    await Promise.all([...last.keys()].map(refresh))
    const sum = Registry.aggregate([ended, ...last.values()])
    send(worker, { type: 'sum', id, text: await sum.metrics() })
  }

  return {
    add(worker) {
      last.set(worker, [])
      worker.on('message', (message: MetricsMessage) => {
        if (message.type === 'sum_wanted') void answer(worker, message.id)
        if (message.type !== 'metrics') return
        last.set(worker, message.families)
        if (message.id !== undefined) waiting.get(message.id)?.()
      })
      // Emitted after the last message, unlike `exit`.
      worker.once('disconnect', () => {
        const counts = (last.get(worker) ?? []).filter(({ type }) => type === 'counter' || type === 'histogram')
        // An aggregated metric is an object with its values.
        ended = Registry.aggregate([ended, counts]).getMetricsAsArray() as MetricFamily[]
        last.delete(worker)
      })
    },
  }
}

function send(worker: ChildProcess, message: MetricsMessage): void {
  worker.send(message, () => {}) // it may have ended
}
