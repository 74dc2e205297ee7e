// A Redis master with a replica that is behind on demand, and the Sentinels that watch them, for one test.
import { type Line, startLine } from './line.ts'
import { type RedisServer, startRedis, startSentinel } from './redis.ts'
import { until } from './until.ts'

export interface WatchedRedis {
  url: string
  master: RedisServer
  replica: RedisServer
  sentinels: RedisServer[]
  /** Between the master and its replica. */
  replication: Line
  /** Resolves when the replica has everything. */
  settle(): Promise<void>
  /** Resolves when the Sentinels name the replica as the master. */
  promoted(): Promise<void>
  remove(): Promise<void>
}

export const masterName = 'main-1'
const downAfterMs = 1000

/** `lines` are added to the configuration of each Sentinel. */
export async function startSentinels(master: RedisServer, count: number, lines: string[] = []): Promise<RedisServer[]> {
  const monitor = [
    `sentinel monitor ${masterName} 127.0.0.1 ${master.port} ${Math.floor(count / 2) + 1}`,
    `sentinel down-after-milliseconds ${masterName} ${downAfterMs}`,
    `sentinel failover-timeout ${masterName} 1500`,
    ...lines,
  ]
  return Promise.all(Array.from({ length: count }, () => startSentinel(monitor)))
}

export const urlOf = (sentinels: { port: number }[]): string =>
  `redis-sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')}/${masterName}`

/** A master, a replica and three Sentinels that know each other. */
export async function startWatchedRedis(): Promise<WatchedRedis> {
  const [master, replica] = await Promise.all([startRedis(), startRedis()])
  const replication = await startLine(master.port)
  await replica.command('replicaof', '127.0.0.1', replication.port)
  const read = async (server: RedisServer) => server.tell('info', 'replication')
  await until(async () => (await read(master)).includes('state=online'))
  const sentinels = await startSentinels(master, 3)
  // So that a failover takes two seconds instead of five, and a busy machine does not stop it (tilt).
  const periods = [
    'info-period',
    200,
    'publish-period',
    200,
    'ping-period',
    100,
    'ask-period',
    100,
    'tilt-trigger',
    60_000,
  ]
  for (const sentinel of sentinels) await sentinel.command('sentinel', 'debug', ...periods)
  for (const sentinel of sentinels) {
    await until(async () => {
      const known = (await sentinel.command('sentinel', 'master', masterName)) as string[]
      const count = (name: string) => Number(known[known.indexOf(name) + 1])
      return count('num-other-sentinels') === 2 && count('num-slaves') === 1
    })
  }

  return {
    url: urlOf(sentinels),
    master,
    replica,
    sentinels,
    replication,

    async settle() {
      const offset = /^master_repl_offset:(\d+)/m
      await until(async () => {
        const [ofMaster, ofReplica] = await Promise.all([read(master), read(replica)])
        return offset.exec(ofMaster)?.[1] === offset.exec(ofReplica)?.[1]
      })
    },

    async promoted() {
      await until(async () => {
        const sentinel = sentinels.at(-1) as RedisServer
        const asking = sentinel.command('sentinel', 'get-master-addr-by-name', masterName) as Promise<string[]>
        return asking.then(
          ([, port]) => Number(port) === replica.port,
          () => false, // the Sentinel may be too busy
        )
      }, 60_000)
    },

    async remove() {
      await Promise.all([...sentinels, master, replica].map(server => server.remove()))
      await replication.close()
    },
  }
}

let watched: Promise<{ url: string; master: RedisServer }> | null = null

async function startShared() {
  const master = await startRedis()
  return { url: urlOf(await startSentinels(master, 1)), master }
}

/** A master without replicas and one Sentinel, started once for this process. */
export const sharedSentinel = () => (watched ??= startShared())
