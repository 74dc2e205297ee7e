// Servers of other projects that a benchmark starts for itself: Redis, a Redis cluster and nginx.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { childOf, scratchFolder } from './processes.ts'

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

interface RedisOptions {
  /** Keep an append-only file that is synced every second; otherwise keep nothing on disk. */
  isDurable?: boolean
}

export async function startRedis(options: RedisOptions = {}): Promise<{ url: string; pid: number }> {
  const { port, pid } = await startRedisServer(options, [])
  return { url: `redis://127.0.0.1:${port}`, pid }
}

/** A cluster of three masters without replicas. `urls` are those of its nodes. */
export async function startRedisCluster(options: RedisOptions = {}): Promise<{ url: string; urls: string[] }> {
  const ports: number[] = []
  for (let i = 0; i < 3; i++) {
    const { port } = await startRedisServer(options, [
      '--cluster-enabled',
      'yes',
      '--cluster-port',
      `${await freePort()}`,
    ])
    ports.push(port)
  }
  const addresses = ports.map(port => `127.0.0.1:${port}`)
  for (const port of ports) await untilAnswering(port, ['ping'], 'PONG')
  await promisify(execFile)('redis-cli', ['--cluster', 'create', ...addresses, '--cluster-yes'])
  for (const port of ports) await untilAnswering(port, ['cluster', 'info'], 'cluster_state:ok')
  return { url: `redis-cluster://${addresses}`, urls: addresses.map(address => `redis://${address}`) }
}

/** Repeats a command until the answer contains `expected`. */
async function untilAnswering(port: number, command: string[], expected: string): Promise<void> {
  for (let waitedMs = 0; waitedMs < 10_000; waitedMs += 50) {
    const answer = await promisify(execFile)('redis-cli', ['-p', `${port}`, ...command]).catch(() => null)
    if (answer?.stdout.includes(expected)) return
    await sleep(50)
  }
  throw new Error(`redis-server at port ${port} did not answer ${command.join(' ')} with ${expected}`)
}

async function startRedisServer(
  { isDurable = false }: RedisOptions,
  more: string[],
): Promise<{ port: number; pid: number }> {
  const port = await freePort()
  const folder = scratchFolder()
  const settings = ['--save', '', '--appendonly', isDurable ? 'yes' : 'no', '--auto-aof-rewrite-percentage', '0']
  const args = ['--port', String(port), '--dir', folder, ...settings, ...more]
  return { port, pid: await childOf(spawn('redis-server', args, { stdio: 'ignore' })) }
}

/** nginx with the `server` block that `configure` returns for a free port. */
export async function startNginx(configure: (port: number) => string): Promise<{ url: string; pid: number }> {
  const port = await freePort()
  const folder = scratchFolder()
  const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const paths = kinds.map(kind => `${kind}_temp_path ${folder}/${kind};`).join(' ')
  const file = join(folder, 'nginx.conf')
  writeFileSync(
    file,
    `daemon off; pid ${folder}/pid; error_log stderr crit; worker_processes auto;
events {}
http { access_log off; ${paths}
${configure(port)}}`,
  )
  const server = spawn('nginx', ['-p', folder, '-c', file], { stdio: ['ignore', 'ignore', 'inherit'] })
  const pid = await childOf(server)
  const url = `http://127.0.0.1:${port}`
  await untilListening(server, url)
  return { url, pid }
}

async function untilListening(server: ChildProcess, url: string): Promise<void> {
  while (server.exitCode === null) {
    if (await fetch(url).catch(() => null)) return
    await sleep(20)
  }
  throw new Error('nginx did not start')
}
