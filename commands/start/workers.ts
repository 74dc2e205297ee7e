// The processes of one service: one, or several that share its ports. Hides how they share them, that one that dies is
// replaced, and that a planned replacement is ready before the old one is told to stop.
import { type ChildProcess, spawn } from 'node:child_process'
import cluster from 'node:cluster'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import type { Environment } from '../../shared/config/readSettings.ts'
import type { ServiceMessage } from '../../shared/service.ts'
import { fillPorts } from './ports.ts'

export interface WorkersOptions {
  /** `Auth`, `Business`. */
  name: string
  /** Path of its main.ts. */
  path: string
  env: Environment
  count: number
  /** For stdout: `inherit` or a file. */
  output: 'inherit' | number
  restarts?: RestartLimits
  /** A worker got a signal: all are to stop. */
  onStop(reason: string): void
  /** A worker has ended by itself, and another starts in `pauseMs`. */
  onRestart(death: { name: string; how: string; pauseMs: number }): void
  /** No worker is left, and no other is started. */
  onEnd(how: string): void
}

export interface RestartLimits {
  /** A worker that dies sooner after its start has died quickly. */
  minLifeMs: number
  /** Before the restart after the first quick death. It doubles with each further one in a row. */
  firstPauseMs: number
  /** A store that comes back is noticed within this time. */
  maxPauseMs: number
  /** So many in a row, and for each worker, are the end, unless another worker serves. */
  maxQuickDeaths: number
}

/** Half a minute until the end: long enough for a store that restarts, short enough for a platform to take over. */
const usualRestarts: RestartLimits = { minLifeMs: 5000, firstPauseMs: 250, maxPauseMs: 30_000, maxQuickDeaths: 8 }
const killAfterMs = 27_000 // longer than a service takes to close by itself

export type Workers = Awaited<ReturnType<typeof startWorkers>>

interface Worker {
  child: ChildProcess
  /** When it said that it listens; null while it starts. */
  listensSince: number | null
  /** Its end is planned: no other is started for it. */
  isMeantToEnd: boolean
}

/** Resolves when all of them listen. */
export async function startWorkers({
  name,
  path,
  env,
  count,
  output,
  restarts = usualRestarts,
  onStop,
  onRestart,
  onEnd,
}: WorkersOptions) {
  const workers = new Set<Worker>()
  let areAllStarted = false
  let quickDeaths = 0 // in a row
  let stopping = false
  // Processes that share a port must agree on it; one alone keeps the ports that the system gave it at its first start.
  let ownEnv = count > 1 ? await fillPorts(env, choosePort) : env

  function spawnOne(): ChildProcess {
    const stdio = ['ignore' as const, output, 'inherit' as const, 'ipc' as const]
    if (count === 1) return spawn(process.execPath, [path], { env: ownEnv, stdio })
    // Connections are accepted here and handed out in turn: while a worker is replaced none waits in a queue that is gone.
    cluster.setupPrimary({ exec: path, args: [], stdio })
    return cluster.fork(ownEnv).process
  }

  /** Resolves to its addresses once it listens; rejects with a sentence if it ends before, and never settles if that is planned. */
  function start(): Promise<Record<string, string>> {
    const worker: Worker = { child: spawnOne(), listensSince: null, isMeantToEnd: false }
    workers.add(worker)
    return new Promise((resolve, reject) => {
      worker.child.on('message', (message: ServiceMessage) => {
        if (message.type === 'stop') return onStop(message.reason)
        worker.listensSince = performance.now()
        resolve(message.addresses)
      })
      const ended = (how: string) => {
        if (!workers.delete(worker) || worker.isMeantToEnd || stopping) return
        if (worker.listensSince === null) reject(new Error(`${name} ${how}`))
        else startAnother(`${name} ${how}`, performance.now() - worker.listensSince)
      }
      worker.child.once('exit', (code, signal) => ended(`ended (${signal ?? `exit code ${code}`})`))
      worker.child.on('error', error => {
        // Without a process there is no exit. A later error is of a message to one that is gone.
        if (worker.child.pid === undefined) ended(`could not be started (${error.message})`)
      })
    })
  }

  const isAnyListening = () => [...workers].some(({ listensSince }) => listensSince !== null)

  /**
   * In place of one that has ended by itself. Quick deaths are restarted with growing pauses, so that they do not keep the
   * machine from the workers that serve, or from the store that they wait for.
   */
  function startAnother(how: string, livedMs: number): void {
    const { minLifeMs, firstPauseMs, maxPauseMs, maxQuickDeaths } = restarts
    quickDeaths = livedMs < minLifeMs ? quickDeaths + 1 : 0
    if (!areAllStarted) {
      onEnd(how)
      return
    }
    if (quickDeaths >= maxQuickDeaths * count && !isAnyListening()) {
      onEnd(`${how}, ${quickDeaths} times in a row soon after its start`)
      return
    }
    const pauseMs = quickDeaths === 0 ? 0 : Math.min(firstPauseMs * 2 ** (quickDeaths - 1), maxPauseMs)
    onRestart({ name, how, pauseMs })
    setTimeout(() => {
      if (!stopping) start().catch((error: Error) => startAnother(error.message, 0))
    }, pauseMs)
  }

  /** Resolves to false if it did not end well: what it was to keep is lost. */
  async function end(worker: Worker, reason: string): Promise<boolean> {
    const { child } = worker
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode === 0
    worker.isMeantToEnd = true
    const hasServed = worker.listensSince !== null // one that was still starting has nothing to keep
    const tell = () => child.send({ type: 'stop', reason } satisfies ServiceMessage, () => {}) // it may be gone by now
    tell()
    // While it starts it does not listen to this process, either.
    child.on('message', ({ type }: ServiceMessage) => type === 'ready' && tell())
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
     * One after the other: a new one is ready before an old one stops. One that is alone stays: it has the ports. Resolves to
     * null, or to a sentence if a new one did not start: the old ones from there on stay.
     */
    async replaceAll(reason: string): Promise<string | null> {
      if (count === 1) return null
      for (const old of [...workers]) {
        if (stopping) return null
        if (!workers.has(old)) continue // it ended by itself, and has another in its place
        old.isMeantToEnd = true // the new one takes its place, even if the old one ends before
        try {
          await start()
        } catch (error) {
          const { message } = error as Error
          old.isMeantToEnd = false
          if (!workers.has(old)) startAnother(message, 0)
          return message
        }
        await end(old, reason)
      }
      return null
    },

    async stop(reason: string): Promise<boolean> {
      stopping = true
      // The last one after the others: the clients that those send away find it listening. Two that stop at the same moment
      // would send clients to each other.
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
