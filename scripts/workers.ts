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
const leastLifeMs = 5000 // a worker that dies sooner would die again

/** Resolves when all of them listen. */
export async function startWorkers({ name, path, env, ports, count, output, onStop, onEnd }: WorkersOptions) {
  const running = new Set<ChildProcess>()
  const meantToEnd = new Set<ChildProcess>()
  let stopping = false
  const shared = count > 1 ? { ...env, ...(await choosePorts(env, ports)) } : env

  function spawnOne(): ChildProcess {
    const stdio = ['ignore' as const, output, 'inherit' as const, 'ipc' as const]
    if (count === 1) return spawn(process.execPath, [path], { env: shared, stdio })
    // Connections are accepted here and handed out in turn: while a worker is replaced none waits in a queue that is gone.
    cluster.setupPrimary({ exec: path, args: [], stdio })
    return cluster.fork(shared).process
  }

  /** Resolves to the addresses of the service once this worker listens; never where it ends before. */
  function start(): Promise<{ child: ChildProcess; addresses: Record<string, string> }> {
    const startedAt = performance.now()
    const child = spawnOne()
    running.add(child)
    child.once('exit', (code, signal) => {
      running.delete(child)
      if (stopping || meantToEnd.delete(child)) return
      const how = `${name} ended (${signal ?? `exit code ${code}`})`
      if (count === 1 || performance.now() - startedAt < leastLifeMs) return onEnd(how)
      console.error(`${how}; starting another.`)
      void start()
    })
    return new Promise(resolve => {
      child.on('message', (message: ServiceMessage) => {
        if (message.type === 'ready') resolve({ child, addresses: message.addresses })
        else onStop(message.reason)
      })
    })
  }

  /** Resolves to false where it did not end well: what it was to keep is lost. */
  async function end(child: ChildProcess, reason: string): Promise<boolean> {
    meantToEnd.add(child)
    child.send({ type: 'stop', reason } satisfies ServiceMessage, () => {}) // it may be gone by now
    const kill = setTimeout(() => child.kill('SIGKILL'), killAfterMs)
    const [code] = await once(child, 'exit')
    clearTimeout(kill)
    return code === 0
  }

  const started = await Promise.all(Array.from({ length: count }, start))

  return {
    addresses: started[0]?.addresses as Record<string, string>,

    /** One after the other: a new one is ready before an old one stops. One that is alone stays: it has the ports. */
    async replaceAll(reason: string): Promise<void> {
      if (count === 1) return
      for (const old of [...running]) {
        if (stopping) return
        await start()
        await end(old, reason)
      }
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
