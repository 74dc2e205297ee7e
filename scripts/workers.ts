// The processes of one service: one, or several that share its ports. Hides how they share them, that one of several that
// dies is replaced, and that a replacement is ready before the old one is told to stop.
import { type ChildProcess, spawn } from 'node:child_process'
import cluster from 'node:cluster'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import type { Environment } from '../shared/config.ts'
import type { ServiceMessage } from '../shared/service.ts'

export interface WorkersOptions {
  /** `Auth`, `Business`. */
  name: string
  /** Of its main.ts. */
  path: string
  env: Environment
  /** The settings of its ports; of 0, the system chooses. */
  ports: string[]
  count: number
  /** For stdout: `inherit` or a file. */
  output: 'inherit' | number
  /** A worker wants all to stop: it has got a signal. */
  onStop(reason: string): void
  /** A worker has ended by itself, and there is none in its place. */
  onEnd(how: string): void
}

export type Workers = Awaited<ReturnType<typeof startWorkers>>

const killAfterMs = 27_000 // longer than a service takes to close by itself
const leastLifeMs = 5000 // a worker that dies sooner may die again at once
const longestPauseMs = 30_000 // how long a store may be back before all of them are

interface Started {
  child: ChildProcess
  /** Of the service. */
  addresses: Record<string, string>
}

/** Resolves when all of them listen. */
export async function startWorkers({ name, path, env, ports, count, output, onStop, onEnd }: WorkersOptions) {
  const running = new Set<ChildProcess>()
  const listening = new Set<ChildProcess>()
  const meantToEnd = new Set<ChildProcess>()
  let areAllStarted = false
  let failures = 0 // one after the other
  let stopping = false
  const shared = count > 1 ? { ...env, ...(await choosePorts(env, ports)) } : env

  function spawnOne(): ChildProcess {
    const stdio = ['ignore' as const, output, 'inherit' as const, 'ipc' as const]
    if (count === 1) return spawn(process.execPath, [path], { env: shared, stdio })
    // Connections are accepted here and handed out in turn: while a worker is replaced none waits in a queue that is gone.
    cluster.setupPrimary({ exec: path, args: [], stdio })
    return cluster.fork(shared).process
  }

  /** Resolves once this worker listens; rejects with a sentence where it ends before, and never settles where it is told to. */
  function start(): Promise<Started> {
    const child = spawnOne()
    running.add(child)
    return new Promise((resolve, reject) => {
      let listensSince = Infinity
      child.on('message', (message: ServiceMessage) => {
        if (message.type === 'stop') return onStop(message.reason)
        listensSince = performance.now()
        listening.add(child)
        resolve({ child, addresses: message.addresses })
      })
      child.once('exit', (code, signal) => {
        running.delete(child)
        const listened = listening.delete(child)
        if (meantToEnd.delete(child) || stopping) return
        const how = `${name} ended (${signal ?? `exit code ${code}`})`
        if (listened) startAnother(how, performance.now() - listensSince)
        else reject(new Error(how))
      })
    })
  }

  /** In place of one that has ended by itself. Soon dead ones must not keep the machine from those that still serve. */
  function startAnother(how: string, livedMs: number): void {
    failures = livedMs < leastLifeMs ? failures + 1 : 0
    const isHopeless = !areAllStarted || (failures > 0 && listening.size === 0)
    if (count === 1 || isHopeless) {
      onEnd(how)
      return
    }
    const pauseMs = failures === 0 ? 0 : Math.min(1000 * 2 ** (failures - 1), longestPauseMs)
    console.error(`${how}; starting another${pauseMs > 0 ? ` in ${pauseMs / 1000} s` : ''}.`)
    setTimeout(() => {
      if (!stopping) start().catch((error: Error) => startAnother(error.message, 0))
    }, pauseMs)
  }

  /** Resolves to false where it did not end well: what it was to keep is lost. */
  async function end(child: ChildProcess, reason: string): Promise<boolean> {
    if (child.exitCode !== null || child.signalCode !== null) return child.exitCode === 0
    meantToEnd.add(child)
    const hasServed = listening.has(child) // one that was still starting has nothing to keep
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

  return {
    addresses: started[0]?.addresses as Record<string, string>,

    /**
     * One after the other: a new one is ready before an old one stops. One that is alone stays: it has the ports. Resolves to
     * null, or to a sentence where a new one did not start: the old ones from there on stay.
     */
    async replaceAll(reason: string): Promise<string | null> {
      if (count === 1) return null
      for (const old of [...running]) {
        if (stopping) return null
        if (!running.has(old)) continue // it ended by itself, and has another in its place
        meantToEnd.add(old) // the new one takes its place, also where it ends before
        try {
          await start()
        } catch (error) {
          const { message } = error as Error
          if (!meantToEnd.delete(old)) startAnother(message, 0)
          return message
        }
        await end(old, reason)
      }
      return null
    },

    async stop(reason: string): Promise<boolean> {
      stopping = true
      // The last one after the others: whom those send away finds it listening. Two that stop at the same moment would send
      // clients to each other.
      const [last, ...others] = [...running]
      const ended = await Promise.all(others.map(child => end(child, reason)))
      if (last) ended.push(await end(last, reason))
      return ended.every(Boolean)
    },
  }
}

/** In place of 0: processes that share a port must be told which. */
async function choosePorts(env: Environment, settings: string[]): Promise<Environment> {
  const chosen: Environment = {}
  for (const setting of settings) {
    if (env[setting] !== '0') continue
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    chosen[setting] = String((server.address() as AddressInfo).port)
    server.close()
    await once(server, 'close')
  }
  return chosen
}
