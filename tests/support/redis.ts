// Redis servers and a cluster for one test. The test can stop, hang, fill and kill them without affecting other tests.
// No server outlives this process, however the process ends.
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { createClient } from '@redis/client'
import { freePort } from './freePort.ts'
import { thisHost } from './host.ts'
import { type Line, startLine } from './line.ts'
import { until } from './until.ts'

type Config = Record<string, string>

export interface RedisServer {
  url: string
  port: number
  folder: string
  /** Starts with these settings added to the earlier ones. Resolves when it accepts commands. */
  start(config?: Config): Promise<void>
  /** SIGKILL. */
  kill(): Promise<void>
  /** SIGSTOP: connections can be opened, but get no answer. */
  hang(): void
  resume(): void
  /** Uses its own connection and a user with all rights, whatever the password is. */
  command(...args: (string | number)[]): Promise<unknown>
  /** The same for commands that return text, such as INFO. */
  tell(...args: (string | number)[]): Promise<string>
  /** Stops it, even if it hangs, and removes its files. */
  remove(): Promise<void>
}

export const hasRedis = spawnSync('redis-server', ['--version']).status === 0

/** Prints why a suite is skipped; the caller calls `this.skip()`. */
export function reportMissingRedis(what: string): void {
  console.log(`  not tested: ${what}, because redis-server is not installed`)
}

// If the system has setpriv, the kernel ends the server when this process ends, even if this process is killed.
const guard = ['setpriv', '--pdeathsig', 'KILL']
const launcher = spawnSync(guard[0] as string, [...guard.slice(1), 'true']).status === 0 ? guard : []

const children = new Set<ChildProcess>()
let home: string | null = null

process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
  if (home !== null) rmSync(home, { recursive: true, force: true })
})

/** A port and a folder of a server, and the settings that every kind of server gets. */
async function newPlace({ address } = thisHost): Promise<{ port: number; folder: string; settings: Config }> {
  home ??= mkdtempSync(join(tmpdir(), 'latchkey-redis-'))
  const port = await freePort()
  const folder = join(home, String(port))
  mkdirSync(folder)
  const settings: Config = {
    port: String(port),
    bind: address,
    dir: folder,
    logfile: join(folder, 'log'),
    user: 'tests on nopass ~* &* +@all',
  }
  return { port, folder, settings }
}

/** `config` may be a function of the chosen port. */
export async function startRedis(
  config: Config | ((port: number) => Promise<Config>) = {},
  host = thisHost,
): Promise<RedisServer> {
  const { port, folder, settings } = await newPlace(host)
  Object.assign(settings, {
    save: '',
    appendonly: 'yes',
    appendfsync: 'always',
    'enable-debug-command': 'yes',
    'repl-diskless-sync-delay': '0',
  })
  const argsOf = (more: Config) => {
    Object.assign(settings, more)
    return Object.entries(settings).flatMap(([name, value]) => [`--${name}`, ...value.split(' ')])
  }
  const server = createServer(port, folder, argsOf, host)
  await server.start(typeof config === 'function' ? await config(port) : config)
  return server
}

/** Each of the lines of its configuration has a name and values. A Sentinel rewrites its file. */
export async function startSentinel(lines: string[]): Promise<RedisServer> {
  const { port, folder, settings } = await newPlace()
  const file = join(folder, 'sentinel.conf')
  const common = Object.entries(settings).map(([name, value]) => `${name} ${value}`)
  writeFileSync(file, [...common, ...lines, ''].join('\n'))
  const server = createServer(port, folder, () => [file, '--sentinel'])
  await server.start()
  return server
}

/** The returned server is not started. `argsOf` gets the settings that were passed to `start`. */
function createServer(
  port: number,
  folder: string,
  argsOf: (more: Config) => string[],
  { address: host, launcher: hostLauncher } = thisHost,
): RedisServer {
  let child: ChildProcess | null = null
  const server: RedisServer = {
    url: `redis://${host}:${port}`,
    port,
    folder,

    async start(more = {}) {
      const command = [...hostLauncher, ...launcher, 'redis-server', ...argsOf(more)]
      child = spawn(command[0] as string, command.slice(1), { stdio: 'ignore' })
      child.unref()
      children.add(child)
      await until(() => takesCommands(host, port))
    },

    async kill() {
      if (child === null) return
      const ended = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : null
      child.ref() // otherwise this process could exit while it waits
      child.kill('SIGKILL')
      children.delete(child)
      await ended
      child = null
    },

    hang: () => void child?.kill('SIGSTOP'),
    resume: () => void child?.kill('SIGCONT'),

    async command(...args) {
      const socket = { host, port, reconnectStrategy: false as const }
      const client = createClient({ username: 'tests', password: 'any', RESP: 2, disableClientInfo: true, socket })
      client.on('error', () => {}) // the command rejects
      await client.connect()
      try {
        return await client.sendCommand(args.map(String))
      } finally {
        client.destroy()
      }
    },

    tell: async (...args) => String(await server.command(...args)),

    async remove() {
      await server.kill()
      rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 }) // a child may still write
    },
  }
  return server
}

/** Also offers TLS, on a second port, with a self-signed certificate. */
export async function startRedisWithTls(): Promise<RedisServer & { tlsPort: number }> {
  const server = await startRedis()
  await server.kill()
  const [key, certificate] = [join(server.folder, 'server.key'), join(server.folder, 'server.crt')]
  const request = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=localhost', '-days', '2']
  await promisify(execFile)('openssl', [...request, '-keyout', key, '-out', certificate])
  const tlsPort = await freePort()
  await server.start({
    'tls-port': String(tlsPort),
    'tls-cert-file': certificate,
    'tls-key-file': key,
    'tls-auth-clients': 'no',
  })
  return Object.assign(server, { tlsPort })
}

export interface ClusterNode extends RedisServer {
  /** The proxy whose port the node announces to clients. */
  line: Line
  id(): Promise<string>
}

export interface RedisCluster {
  url: string
  /** The masters. */
  nodes: ClusterNode[]
  /** Resolves to another node, which holds no slots. */
  addNode(): Promise<ClusterNode>
  removeNode(node: ClusterNode): Promise<void>
  /** Resolves when every node reports a working cluster and knows all nodes. */
  settle(): Promise<void>
}

/** Three masters without replicas. */
export async function startCluster(): Promise<RedisCluster> {
  const nodes: ClusterNode[] = []

  async function startNode(): Promise<ClusterNode> {
    let line: Line | undefined
    const node = await startRedis(async port => {
      line = await startLine(port)
      return {
        'cluster-enabled': 'yes',
        'cluster-port': String(await freePort()),
        'cluster-announce-port': String(line.port),
        'cluster-node-timeout': '1000',
        'cluster-require-full-coverage': 'no',
        'cluster-replica-validity-factor': '0',
        'cluster-allow-replica-migration': 'no', // a node that gives its last slot away stays a master
      }
    })
    return Object.assign(node, { line: line as Line, id: () => node.tell('cluster', 'myid') })
  }

  async function introduce(node: ClusterNode, to: ClusterNode): Promise<void> {
    const busPort = /@(\d+)/.exec(await to.tell('cluster', 'nodes'))?.[1] as string
    await node.command('cluster', 'meet', '127.0.0.1', to.line.port, busPort)
  }

  async function settle(): Promise<void> {
    await until(async () => {
      const infos = await Promise.all(nodes.map(node => node.tell('cluster', 'info')))
      const isKnown = `cluster_known_nodes:${nodes.length}\r`
      return infos.every(info => info.includes('cluster_state:ok') && info.includes(isKnown))
    }, 45_000)
  }

  nodes.push(...(await Promise.all([startNode(), startNode(), startNode()])))
  const [first, ...others] = nodes as [ClusterNode, ...ClusterNode[]]
  for (const [i, node] of nodes.entries()) {
    await node.command('cluster', 'set-config-epoch', i + 1)
    const [from, to] = [Math.ceil((16_384 * i) / 3), Math.ceil((16_384 * (i + 1)) / 3) - 1]
    await node.command('cluster', 'addslotsrange', from, to)
  }
  for (const node of others) await introduce(node, first)
  await settle()

  return {
    url: `redis-cluster://${nodes.map(({ line }) => `127.0.0.1:${line.port}`).join(',')}`,
    nodes,
    settle,
    async addNode() {
      const node = await startNode()
      await introduce(node, first)
      nodes.push(node)
      await settle()
      return node
    },
    async removeNode(node) {
      const id = await node.id()
      nodes.splice(nodes.indexOf(node), 1)
      await node.remove()
      await node.line.close()
      for (const other of nodes) await other.command('cluster', 'forget', id)
      await settle()
    },
  }
}

let cluster: Promise<RedisCluster> | null = null
let withTls: ReturnType<typeof startRedisWithTls> | null = null

/** Started once for this process. */
export const sharedCluster = (): Promise<RedisCluster> => (cluster ??= startCluster())

/** Started once for this process. */
export const sharedRedisWithTls = () => (withTls ??= startRedisWithTls())

/** Whether the server accepts commands, even if it refuses this client. */
async function takesCommands(host: string, port: number): Promise<boolean> {
  const socket = connect(port, host)
  try {
    socket.write('PING\r\n')
    const [answer] = await once(socket, 'data')
    return !String(answer).startsWith('-LOADING')
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
