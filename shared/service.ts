// The process of a service: reads the configuration, starts the service, handles signals, and stops without losing a request.
import { ConfigError } from './config/readSettings.ts'
import { describeError, type Log } from './log/log.ts'
import { flushSpans } from './tracing.ts'
import { type MetricsMessage, sendLastMetrics } from './workerMetrics.ts'

export interface Service {
  log: Log
  /** Listener name -> address, such as `http://127.0.0.1:3000`. Rejects with a message for the operator. */
  listen(): Promise<Record<string, string>>
  /** Stops without losing a request. Called once. */
  close(): Promise<void>
}

/**
 * Messages over IPC between a service and the process that started it. The service sends `ready` when it listens, and `stop`
 * when it gets a signal. The parent decides which service stops first, and sends `stop` back.
 */
export type ServiceMessage =
  | { type: 'ready'; addresses: Record<string, string> }
  | { type: 'stop'; reason: string }
  | MetricsMessage

const closeTimeoutMs = 25_000 // Heroku kills after 30 s; a snapshot of ten million tokens takes 18 s

/**
 * Runs until SIGTERM, SIGINT or the end of the parent process; then closes and exits with 0. Exits with 1 if the
 * configuration is invalid, the service cannot start, or an error was not handled. `flush` writes what has been logged.
 */
export async function runService<C>(
  readConfig: () => C,
  open: (config: C) => Promise<Service>,
  flush: () => Promise<void>,
): Promise<void> {
  let service: Service
  try {
    const config = readConfig()
    service = await open(config)
  } catch (error) {
    fail(error)
  }
  const { log } = service

  let closing: Promise<void> | null = null
  function close(reason: string, exitCode: number): void {
    if (closing) return
    log.info('closing', { channel: 'security', reason })
    setTimeout(() => process.exit(1), closeTimeoutMs).unref()
    closing = service
      .close()
      .catch(error => {
        log.error('close_failed', { error })
        exitCode = 1
      })
      .then(() => Promise.all([sendLastMetrics(), flushSpans()]))
      .then(flush)
      .then(() => process.exit(exitCode))
  }
  // Ctrl-C and Heroku signal every process at the same moment, but Business must stop first, so the parent sets the order.
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, () => (process.connected ? sendToParent({ type: 'stop', reason: signal }) : close(signal, 0)))
  }
  process.on('message', (message: ServiceMessage) => message.type === 'stop' && close(message.reason, 0))
  process.on('disconnect', () => close('the process that started this one is gone', 0))
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (error: unknown) => {
      log.error(event, { ...describeError(error), stack: error instanceof Error ? error.stack : undefined })
      close(event, 1)
    })
  }

  try {
    const addresses = await service.listen()
    log.info('listening', { channel: 'security', ...addresses })
    if (process.connected) sendToParent({ type: 'ready', addresses })
  } catch (error) {
    // Close the service even so: it may have restored a snapshot, which it must save again for the next run.
    await service.close().catch(error => log.error('close_failed', { error }))
    await flush()
    fail(error)
  }
}

function sendToParent(message: ServiceMessage): void {
  // Without a callback an error would be thrown here, and the parent may just have exited.
  process.send?.(message, undefined, undefined, () => {})
}

function fail(error: unknown): never {
  const lines = error instanceof ConfigError ? error.problems : [error instanceof Error ? error.message : String(error)]
  process.stderr.write(lines.map(line => `${line}\n`).join(''))
  process.exit(1)
}
