// The processes of one service: one, or several that share its ports. Hides how they share the ports, how a process that
// dies is restarted, and how a process is replaced without a gap.
import { type ChildProcess, spawn } from 'node:child_process'
import cluster from 'node:cluster'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import type { Environment } from '../../shared/config/readSettings.ts'
import type { ServiceMessage } from '../../shared/service.ts'
import { fillPorts } from './ports.ts'

export interface WorkersOptions {
  /** `Auth` or `Business`. */
  name: string
  /** Path of its main.ts. */
  path: string
  env: Environment
  count: number
  /** Receives stdout: `inherit` or a file descriptor. */
  output: 'inherit' | number
  restarts?: RestartLimits
  /** A worker received a signal, so all workers must stop. */
  onStop(reason: string): void
  /** A worker ended unexpectedly and will be restarted after `pauseMs`. */
  onRestart(end: { name: string; reason: string; pauseMs: number }): void
  /** No worker is left, and none will be started. */
  onEnd(reason: string): void
}

export interface RestartLimits {
  /** A worker that dies within this time after its start has died quickly. */
  minLifeMs: number
  /** The pause before the restart after a quick death; doubles with each further quick death in a row. */
  firstPauseMs: number
  /** Also the maximum delay before a recovered store is noticed. */
  maxPauseMs: number
  /** Give up after this many quick deaths in a row per worker, unless another worker serves. */
  maxQuickDeaths: number
}

/** Gives up after half a minute: long enough for a store to restart, short enough for a platform to take over. */
const defaultRestarts: RestartLimits = { minLifeMs: 5000, firstPauseMs: 250, maxPauseMs: 30_000, maxQuickDeaths: 8 }
const killAfterMs = 27_000 // longer than a service takes to close on its own

export type Workers = Awaited<ReturnType<typeof startWorkers>>

interface Worker {
  child: ChildProcess
  /** When the worker reported that it listens; null while it starts. */
  listeningSince: number | null
  /** Whether its end is planned; then it is not restarted. */
  isEnding: boolean
}

/** Resolves when all workers listen. */
export async function startWorkers({
  name,
  path,
  env,
  count,
  output,
  restarts = defaultRestarts,
  onStop,
  onRestart,
  onEnd,
}: WorkersOptions) {
  const workers = new Set<Worker>()
  let areAllStarted = false
  let quickDeaths = 0 // in a row
  let stopping = false
  // Processes that share a port must agree on it in advance. A single process keeps the ports that the system gave it at first.
  let ownEnv = count > 1 ? await fillPorts(env, choosePort) : env
  // The library behind it takes 0.1 s to load.
  const metricsSum = count > 1 ? (await import('./metricsSum.ts')).createMetricsSum() : null

  function spawnOne(): ChildProcess {
    const stdio = ['ignore' as const, output, 'inherit' as const, 'ipc' as const]
    if (count === 1) return spawn(process.execPath, [path], { env: ownEnv, stdio })
    // This process accepts the connections and hands them out, so none is lost in the queue of a replaced worker.
    cluster.setupPrimary({ exec: path, args: [], stdio })
    return cluster.fork(ownEnv).process
  }

  /** Resolves to the addresses once the worker listens; rejects if it ends before that, unless its end is planned. */
  function start(): Promise<Record<string, string>> {
    const worker: Worker = { child: spawnOne(), listeningSince: null, isEnding: false }
    workers.add(worker)
    return new Promise((resolve, reject) => {
      worker.child.on('message', (message: ServiceMessage) => {
        if (message.type === 'stop') return onStop(message.reason)
        if (message.type !== 'ready') return
        worker.listeningSince = performance.now()
        metricsSum?.add(worker.child)
        resolve(message.addresses)
      })
      const ended = (reason: string) => {
        if (!workers.delete(worker) || worker.isEnding || stopping) return
        if (worker.listeningSince === null) reject(new Error(`${name} ${reason}`))
        else restart(`${name} ${reason}`, performance.now() - worker.listeningSince)
      }
      worker.child.once('exit', (code, signal) => ended(`ended (${signal ?? `exit code ${code}`})`))
      worker.child.on('error', error => {
        // Without a process there is no 'exit'. Later errors come from messages to a process that has ended.
        if (worker.child.pid === undefined) ended(`did not start (${error.message})`)
      })
    })
  }

  const isAnyListening = () => [...workers].some(({ listeningSince }) => listeningSince !== null)

  /**
   * Replaces a worker that ended unexpectedly. The pauses grow with quick deaths, so that restarts do not take the processor
   * from other workers or from the store they wait for.
   */
  function restart(reason: string, livedMs: number): void {
    const { minLifeMs, firstPauseMs, maxPauseMs, maxQuickDeaths } = restarts
    quickDeaths = livedMs < minLifeMs ? quickDeaths + 1 : 0
    if (!areAllStarted) {
      onEnd(reason)
      return
    }
    if (quickDeaths >= maxQuickDeaths * count && !isAnyListening()) {
      onEnd(`${reason}, ${quickDeaths} times in a row soon after its start`)
      return
    }
    const pauseMs = quickDeaths === 0 ? 0 : Math.min(firstPauseMs * 2 ** (quickDeaths - 1), maxPauseMs)
    onRestart({ name, reason, pauseMs })
    setTimeout(() => {
      if (!stopping) start().catch((error: Error) => restart(error.message, 0))
    }, pauseMs)
  }

  /** Resolves to false if the worker did not end cleanly, and therefore may not have saved its tokens. */
  async function end(worker: Worker, reason: string): Promise<boolean> {
    const { child } = worker
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode === 0
    worker.isEnding = true
    const hasServed = worker.listeningSince !== null // otherwise it has nothing to save
    const sendStop = () => child.send({ type: 'stop', reason } satisfies ServiceMessage, () => {}) // it may have ended
    sendStop()
    // A worker that is still starting does not receive messages yet.
    child.on('message', ({ type }: ServiceMessage) => type === 'ready' && sendStop())
    const kill = setTimeout(() => child.kill('SIGKILL'), killAfterMs)
    const [code] = await once(child, 'exit')
    clearTimeout(kill)
    return code === 0 || !hasServed
  }

  const started = await Promise.all(Array.from({ length: count }, start)).catch((error: Error) => {
    onEnd(error.message)
    return new Promise<never>(() => {})
  })
  areAllStarted = true
  const addresses = started[0] as Record<string, string>
  ownEnv = await fillPorts(ownEnv, listener => (addresses[listener] ? new URL(addresses[listener]).port : '0'))

  return {
    addresses,

    /**
     * Replaces the workers one by one; each new one is ready before the old one stops. A single worker stays, because it holds
     * the ports. Resolves to null, or to the reason why a new worker did not start; the remaining old ones then stay.
     */
    async replaceAll(reason: string): Promise<string | null> {
      if (count === 1) return null
      for (const old of [...workers]) {
        if (stopping) return null
        if (!workers.has(old)) continue // it ended unexpectedly and has been restarted
        old.isEnding = true // so that it is not also restarted if it ends before its replacement is ready
        try {
          await start()
        } catch (error) {
          const { message } = error as Error
          old.isEnding = false
          if (!workers.has(old)) restart(message, 0)
          return message
        }
        await end(old, reason)
      }
      return null
    },

    async stop(reason: string): Promise<boolean> {
      stopping = true
      // One worker stops last, so that clients of the other workers still find a listener. If the last two stopped at the
      // same moment, each would send its clients to the other.
      const [last, ...others] = [...workers]
      const ended = await Promise.all(others.map(worker => end(worker, reason)))
      if (last) ended.push(await end(last, reason))
      return ended.every(Boolean)
    },
  }
}

async function choosePort(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return String(port)
}
