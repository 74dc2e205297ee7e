// What Auth reports: its metrics, its event log and the stream of `/events`.
import type { Log } from '../../shared/log/log.ts'
import { createMetrics, type Metrics } from '../../shared/metrics.ts'
import { createEventStream, type EventStream } from './observability/eventStream.ts'
import { type AuthEvent, logEvents } from './observability/events.ts'
import { countHeld } from './observability/heldTokens.ts'
import type { StoreTelemetry } from './observability/instrument.ts'
import { countEvents, storeTimer } from './observability/metrics.ts'

export interface Telemetry extends StoreTelemetry {
  metrics: Metrics
  stream: EventStream
  /** Passes an event to the log, the metrics and the stream. */
  emit(event: AuthEvent): void
}

export interface TelemetryOptions {
  log: Log
  /** Epoch milliseconds. */
  now: () => number
  /** Monotonic milliseconds, for durations. */
  monotonicNow: () => number
}

export function createTelemetry({ log, now, monotonicNow }: TelemetryOptions): Telemetry {
  const metrics = createMetrics('auth')
  const stream = createEventStream({ now })
  const subscribers = [
    logEvents(log, monotonicNow),
    countEvents(metrics.registry),
    countHeld(metrics.registry, monotonicNow),
    stream.publish,
  ]
  return {
    metrics,
    stream,
    monotonicNow,
    startTimer: storeTimer(metrics.registry),
    emit(event) {
      for (const notify of subscribers) notify(event)
    },
  }
}
