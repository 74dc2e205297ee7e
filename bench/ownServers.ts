// Servers of other projects that a benchmark starts for itself: Redis and nginx.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { childOf, scratchFolder } from './processes.ts'

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

/** A redis-server that keeps nothing on disk, or with `isDurable` an append-only file that it syncs every second. */
export async function startRedis({ isDurable = false } = {}): Promise<{ url: string; pid: number }> {
  const port = await freePort()
  const folder = scratchFolder()
  const settings = ['--save', '', '--appendonly', isDurable ? 'yes' : 'no', '--auto-aof-rewrite-percentage', '0']
  const server = spawn('redis-server', ['--port', String(port), '--dir', folder, ...settings], { stdio: 'ignore' })
  return { url: `redis://127.0.0.1:${port}`, pid: await childOf(server) }
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
