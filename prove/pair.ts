// Auth and Business as separate processes on a fresh store, connected by lines that can be disturbed. Hides ports, how a
// service is started and stopped, and how each store is prepared.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ServiceMessage } from '../shared/service.ts'
import { searchLog } from '../tests/support/canaries.ts'
import { bareEnvironment } from '../tests/support/childEnvironment.ts'
import { adminKey, serviceKey } from '../tests/support/credentials.ts'
import { freePort } from '../tests/support/freePort.ts'
import type { Host } from '../tests/support/host.ts'
import { type Line, startLine } from '../tests/support/line.ts'
import { binaries, type Cluster, startCluster as startPostgres } from '../tests/support/postgres.ts'
import { testMode } from '../tests/support/processes.ts'
import { hasRedis, type RedisServer, startRedis } from '../tests/support/redis.ts'
import { wideLimits } from '../tests/support/throttles.ts'
import { type Defect, plant } from './defects.ts'
import { type Hosts, openHosts } from './hosts.ts'
import { type SplitCluster, startSplitCluster } from './splitCluster.ts'

export const storeNames = ['memory', 'sqlite', 'postgres', 'redis'] as const
export type StoreName = (typeof storeNames)[number]

/** Short, so that tokens expire during the run. */
export const ttlSeconds = 3
export const absoluteTtlSeconds = 20

/** A service process, which can be restarted. */
export interface Process {
  /** Listener name -> address, as of the last start. */
  addresses: Record<string, string>
  child: ChildProcess
  start(): Promise<void>
  /** Sends SIGKILL and resolves when the process has ended. */
  kill(): Promise<void>
  /** Sends SIGTERM and resolves to the exit code. */
  stop(): Promise<number | null>
  hang(): void
  resume(): void
}

export interface Pair {
  storeName: StoreName
  auth: Process
  /** A second Auth on the same stores, which Business knows too; null if Auth is alone. */
  otherAuth: Process | null
  business: Process
  /** A second Business, at the same Auths; null if Business is alone. */
  otherBusiness: Process | null
  /** The line from Business to Auth. */
  authLine: Line
  /** The line from Auth to its database server; null if the store has no server. */
  storeLine: Line | null
  /** The hosts of Business, Auth and the store; null if all run on this one. Without lines between them. */
  hosts: Hosts | null
  redis: RedisServer | null
  cluster: SplitCluster | null
  postgres: Cluster | null
  /** The folder of the SQLite files, on a disk of its own if one could be mounted. */
  disk: { folder: string; isOwn: boolean }
  /** Moves Auth's clock relative to the latest time it has shown; null if Auth uses the real clock. */
  shiftClock: ((byMs: number) => void) | null
  /** Makes Auth's clock wrong by this much until it is called with 0. Null if the clock is the real one. */
  skewClock: ((byMs: number) => void) | null
  /** Lines of both logs that report an uncaught error. */
  complaints(): string[]
  close(): Promise<void>
}

export interface PairOptions {
  storeName: StoreName
  /** The defect to plant in both services. */
  defect?: Defect | null
  env?: Record<string, string>
  /** Gives Auth a clock that can be set. */
  fakeClock?: boolean
  /** Starts a second Auth. The store must have a server. */
  twoAuths?: boolean
  /** Starts a second Business. Not with `onHosts`. */
  twoBusinesses?: boolean
  /** Runs Business, Auth and the store on hosts of their own. The store must have a server. */
  onHosts?: boolean
  /** The store is a Redis Cluster on two of the hosts. Needs `onHosts`. */
  onCluster?: boolean
}

export const faketime = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib']
  .map(folder => join(folder, 'faketime', 'libfaketime.so.1'))
  .find(existsSync)

/** Null if the store is installed. */
export function whyMissing(storeName: StoreName): string | null {
  if (storeName === 'redis' && !hasRedis) return 'redis-server is not installed'
  return storeName === 'postgres' && binaries === null ? 'PostgreSQL is not installed' : null
}

const children = new Set<ChildProcess>()
const folders = new Set<() => void>()
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
  for (const removeFolder of folders) removeFolder()
})

const smallDisk = '64m' // holds the tokens of a few minutes, and is quickly filled by a fault

export async function startPair({
  storeName,
  defect = null,
  env = {},
  fakeClock = false,
  twoAuths = false,
  twoBusinesses = false,
  onHosts = false,
  onCluster = false,
}: PairOptions) {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-prove-'))
  const disk = mountDisk(join(folder, 'disk'))
  const removeFolder = () => {
    if (disk.isOwn) execFileSync('umount', ['-l', disk.folder])
    rmSync(folder, { recursive: true, force: true })
    folders.delete(removeFolder)
  }
  folders.add(removeFolder)
  const hosts = onHosts ? openHosts() : null
  const cluster = hosts && onCluster ? await startSplitCluster(hosts.store, hosts.otherStore) : null
  const redis = storeName === 'redis' && !cluster ? await startRedis(hosts ? openToOthers : {}, hosts?.store) : null
  const postgres = storeName === 'postgres' ? await startPostgres(hosts?.store) : null
  const server = redis ?? postgres
  const storeLine = server && (await startLine(server.port))
  const authLine = await startLine(0)
  let furthestMs = 0
  const clockFile = fakeClock && faketime !== undefined ? join(folder, 'clock') : null
  if (clockFile) setClock(0)
  const common = { ...testMode(), SERVICE_KEY: serviceKey, ACCESS_LOG: 'off', LOG_LEVEL: 'warn', ...wideLimits }

  const planted = defect && plant(defect)

  const settingsOfAuth = () => ({
    ...common,
    ADMIN_KEY: adminKey,
    AUTH_PORT: '0',
    AUTH_INTERNAL_PORT: '0',
    TOKEN_TTL_SECONDS: String(ttlSeconds),
    TOKEN_ABSOLUTE_TTL_SECONDS: String(absoluteTtlSeconds),
    TOKEN_LIMIT_PER_USER: '1000',
    SWEEP_INTERVAL_SECONDS: '2',
    REGISTRATION: 'open',
    ...storesOf(storeName, disk.folder, `${hosts?.store.address ?? '127.0.0.1'}:${(hosts ? server : storeLine)?.port}`),
    ...(cluster && { TOKEN_STORE_URL: cluster.url }),
    ...(hosts && { ...boundTo(hosts.auth), AUTH_INTERNAL_PORT: String(portOnHost) }),
    ...(clockFile && clockOf(clockFile)),
    ...env,
  })
  const auth = service('auth', 'auth', settingsOfAuth, hosts?.auth)
  const otherPort = twoAuths ? await freePort() : null
  const otherAuth = otherPort
    ? service('otherAuth', 'auth', () => ({ ...settingsOfAuth(), AUTH_INTERNAL_PORT: String(otherPort) }))
    : null
  const settingsOfBusiness = () => ({
    ...common,
    BUSINESS_PORT: '0',
    BUSINESS_INTERNAL_PORT: '0',
    AUTH_INTERNAL_URL: [authLine.port, ...(otherPort ? [otherPort] : [])]
      .map(port => `http://127.0.0.1:${port}`)
      .join(),
    ...(hosts && { ...boundTo(hosts.business), AUTH_INTERNAL_URL: `http://${hosts.auth.address}:${portOnHost}` }),
    ...env,
  })
  const business = service('business', 'business', settingsOfBusiness, hosts?.business)
  const otherBusiness = twoBusinesses ? service('otherBusiness', 'business', settingsOfBusiness) : null

  function setClock(byMs: number): void {
    furthestMs = Math.max(furthestMs, writeClock(byMs))
  }

  /** Returns the difference to the true time. */
  function writeClock(byMs: number): number {
    const shiftMs = furthestMs + byMs
    writeFileSync(clockFile as string, `${shiftMs < 0 ? '-' : '+'}${Math.abs(shiftMs) / 1000}`)
    return shiftMs
  }

  function service(
    name: string,
    script: 'auth' | 'business',
    settings: () => Record<string, string>,
    host?: Host,
  ): Process {
    const handle: Process = {
      addresses: {},
      child: undefined as unknown as ChildProcess,
      async start() {
        const log = openSync(join(folder, `${name}.log`), 'a')
        const node = [process.execPath, ...(planted?.execArgv ?? []), `services/${script}/main.ts`]
        const [command = '', ...args] = [...(host?.launcher ?? []), ...node]
        const child = spawn(command, args, {
          env: { ...bareEnvironment(), ...settings(), ...planted?.env },
          stdio: ['ignore', log, log, 'ipc'],
        })
        closeSync(log) // the child has a copy
        handle.child = child
        children.add(child)
        child.once('exit', () => children.delete(child))
        child.on('error', () => {}) // a message to a process that has ended
        // On a signal, a service asks its parent whether to stop; see ServiceMessage.
        child.on('message', (message: ServiceMessage) => {
          if (message.type === 'stop') child.send(message, () => {})
        })
        const ended = once(child, 'exit').then(([code]) => {
          throw new Error(
            `${name} ended with ${code}: ${readFileSync(join(folder, `${name}.log`), 'utf8').slice(-500)}`,
          )
        })
        ended.catch(() => {})
        const [message] = (await Promise.race([once(child, 'message'), ended])) as [ServiceMessage]
        if (message.type !== 'ready') throw new Error(`${name} received a signal to stop before it was ready`)
        handle.addresses = message.addresses
        if (name === 'auth') authLine.target = Number(new URL(`${message.addresses['authInternal']}`).port)
      },
      kill: () => end(handle.child, 'SIGKILL').then(() => {}),
      stop: () => end(handle.child, 'SIGTERM'),
      hang: () => void handle.child.kill('SIGSTOP'),
      resume: () => void handle.child.kill('SIGCONT'),
    }
    return handle
  }

  const pair: Pair = {
    storeName,
    auth,
    otherAuth,
    business,
    otherBusiness,
    authLine,
    storeLine,
    hosts,
    redis,
    cluster,
    postgres,
    disk,
    shiftClock: clockFile === null ? null : setClock,
    skewClock: clockFile === null ? null : writeClock,
    complaints() {
      const names = [
        'auth',
        ...(otherAuth ? ['otherAuth'] : []),
        'business',
        ...(otherBusiness ? ['otherBusiness'] : []),
      ]
      const lines = names.flatMap(name => readFileSync(join(folder, `${name}.log`), 'utf8').split('\n'))
      searchLog(lines, `the log of the pair on ${storeName}:`)
      // Lines that are not JSON come from stderr.
      return lines.filter(line => line !== '' && (!line.startsWith('{') || /"(uncaught|unhandled)/.test(line)))
    },
    async close() {
      await Promise.all([auth, business, otherAuth, otherBusiness].map(one => one?.child && end(one.child, 'SIGKILL')))
      await authLine.close()
      await storeLine?.close()
      await redis?.remove()
      await cluster?.remove()
      await postgres?.remove()
      hosts?.close()
      removeFolder()
    },
  }
  try {
    await auth.start()
    await otherAuth?.start()
    await Promise.all([business.start(), otherBusiness?.start()])
  } catch (error) {
    await pair.close()
    throw error
  }
  return pair
}

function end(child: ChildProcess, signal: 'SIGKILL' | 'SIGTERM'): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode)
  const ended = once(child, 'exit')
  child.kill(signal)
  return ended.then(([code]) => code as number | null)
}

/** `server` is its host and port, if the store has one. */
function storesOf(storeName: StoreName, folder: string, server: string) {
  const file = `sqlite:${join(folder, 'latchkey.db')}`
  const postgres = `postgres://postgres@${server}/postgres`
  switch (storeName) {
    case 'memory':
      return { USER_STORE_URL: file, TOKEN_SNAPSHOT_FILE: join(folder, 'tokens') }
    case 'sqlite':
      return { USER_STORE_URL: file, TOKEN_STORE_URL: file }
    case 'postgres':
      return { USER_STORE_URL: postgres, TOKEN_STORE_URL: postgres }
    case 'redis':
      return { USER_STORE_URL: file, TOKEN_STORE_URL: `redis://${server}` }
  }
}

const openToOthers = { 'protected-mode': 'no' }
const portOnHost = 4001 // free: nothing else runs there
const boundTo = ({ address }: Host) => ({ HOST: address, INTERNAL_HOST: address })

// Without DONT_FAKE_MONOTONIC, Node fails an assertion.
const clockOf = (file: string) => ({
  LD_PRELOAD: faketime as string,
  FAKETIME_TIMESTAMP_FILE: file,
  FAKETIME_NO_CACHE: '1',
  DONT_FAKE_MONOTONIC: '1',
})

function mountDisk(folder: string): Pair['disk'] {
  mkdirSync(folder)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${smallDisk}`, 'tmpfs', folder], { stdio: 'ignore' })
    return { folder, isOwn: true }
  } catch {
    return { folder, isOwn: false }
  }
}
