// A PostgreSQL server that one test starts for itself. The test can stop, hang and kill it without affecting other tests.
import { execFile, execFileSync } from 'node:child_process'
import { appendFileSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from './freePort.ts'
import { thisHost } from './host.ts'
import { query } from './stores.ts'

const run = promisify(execFile)

export interface Cluster {
  /** The URL of its database, as the superuser, without a password. */
  url: string
  port: number
  /** Resolves when it accepts connections. */
  start(): Promise<void>
  /** `fast` disconnects the clients first, `immediate` is a crash. */
  stop(mode: 'fast' | 'immediate'): Promise<void>
  /** SIGSTOP for all its processes: connections can be opened, but get no answer. */
  hang(): void
  resume(): void
  /** Starts a standby that follows this server. Remove it first. */
  addStandby(): Promise<Cluster>
  /** Turns a standby into a server that accepts changes. */
  promote(): Promise<void>
  /** Offers TLS from now on, with a self-signed certificate. */
  offerTls(): Promise<void>
  /** Uses its own connection. */
  query(text: string): Promise<Record<string, unknown>[]>
  /** Stops it, even if it hangs, and removes its files. */
  remove(): Promise<void>
}

/** The folder of `initdb` and `pg_ctl`; null if PostgreSQL is not installed. */
export const binaries = globSync('/usr/lib/postgresql/*/bin/initdb').map(dirname).sort().at(-1) ?? null

/** The role `guarded` needs its password; all other roles are trusted, also from the other hosts of a test. */
const accessRules = `host all guarded 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
host all all samenet trust
`

export async function startCluster(host = thisHost): Promise<Cluster> {
  const port = await freePort()
  const { data, folder, asOwner, cluster } = createServer(port, host)
  await asOwner('initdb', '-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-sync')
  writeFileSync(join(data, 'pg_hba.conf'), accessRules)
  writeFileSync(
    join(data, 'postgresql.auto.conf'),
    `${placeSettings(port, folder, host)}fsync = off # a crash of the server is tested, not one of the machine\n`,
  )
  await cluster.start()
  return cluster
}

/** The last of several settings with the same name counts. */
function placeSettings(port: number, folder: string, { address } = thisHost): string {
  return `port = ${port}
listen_addresses = '${address}'
unix_socket_directories = '${folder}'
`
}

async function startStandby(primaryPort: number): Promise<Cluster> {
  const port = await freePort()
  const { data, folder, asOwner, cluster } = createServer(port)
  const from = ['-h', '127.0.0.1', '-p', `${primaryPort}`, '-U', 'postgres']
  await asOwner('pg_basebackup', ...from, '-D', data, '-R', '--checkpoint=fast', '--no-sync')
  appendFileSync(join(data, 'postgresql.auto.conf'), placeSettings(port, folder))
  await cluster.start()
  return cluster
}

function createServer(port: number, { address, launcher } = thisHost) {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-postgres-'))
  const data = join(folder, 'data')
  const url = `postgres://postgres@${address}:${port}/postgres`
  const owner = process.getuid?.() === 0 ? 'postgres' : null // PostgreSQL refuses to run as root
  let stopped: number[] = []

  async function asOwner(binary: string, ...args: string[]): Promise<void> {
    const command = [join(binaries as string, binary), ...args]
    if (owner) command.unshift('runuser', '-u', owner, '--')
    command.unshift(...launcher)
    // Do not read the output: the server may keep the pipe open, and then this would never resolve.
    await run('/bin/sh', ['-c', 'exec "$@" >/dev/null 2>>"$0"', join(folder, 'log'), ...command])
  }

  function signal(pid: number, name: 'SIGSTOP' | 'SIGCONT'): void {
    try {
      process.kill(pid, name)
    } catch {} // the process has already ended
  }

  const cluster: Cluster = {
    url,
    port,
    start: () => asOwner('pg_ctl', 'start', '-w', '-D', data, '-l', join(folder, 'log')),
    stop: mode => asOwner('pg_ctl', 'stop', '-w', '-D', data, '-m', mode),
    hang() {
      const postmaster = Number.parseInt(readFileSync(join(data, 'postmaster.pid'), 'utf8'), 10)
      signal(postmaster, 'SIGSTOP') // stop it first, so that it starts no more processes
      const children = execFileSync('pgrep', ['-P', `${postmaster}`], { encoding: 'utf8' })
      stopped = [postmaster, ...children.trim().split('\n').map(Number)]
      for (const pid of stopped) signal(pid, 'SIGSTOP')
    },
    resume() {
      for (const pid of stopped) signal(pid, 'SIGCONT')
      stopped = []
    },
    async offerTls() {
      const [key, certificate] = [join(data, 'server.key'), join(data, 'server.crt')]
      const request = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=localhost', '-days', '2']
      await run('openssl', [...request, '-keyout', key, '-out', certificate])
      if (owner) await run('chown', [owner, key, certificate])
      await cluster.query('alter system set ssl = on')
      await cluster.query('select pg_reload_conf()')
    },
    addStandby: () => startStandby(port),
    promote: () => asOwner('pg_ctl', 'promote', '-w', '-D', data),
    query: text => query(text, url),
    async remove() {
      cluster.resume()
      await cluster.stop('immediate').catch(() => {}) // not running
      rmSync(folder, { recursive: true })
    },
  }

  writeFileSync(join(folder, 'log'), '')
  if (owner) execFileSync('chown', ['-R', owner, folder])
  return { data, folder, asOwner, cluster }
}
