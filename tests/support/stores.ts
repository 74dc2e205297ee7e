// A place that only one store uses: a file, a schema of this machine's PostgreSQL, or a prefix in this
// machine's Redis or in one that the tests start.
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@redis/client'
import pg from 'pg'
import { searchFolder, searchForSecrets } from './canaries.ts'
import { sharedCluster, sharedRedisWithTls } from './redis.ts'
import { sharedSentinel } from './sentinels.ts'

export interface Place {
  url: string
  remove(): Promise<void>
}

export const postgresUrl = process.env['TEST_POSTGRES_URL'] ?? 'postgres://postgres@127.0.0.1:5432/test'

const redisUrl = process.env['TEST_REDIS_URL'] ?? 'redis://127.0.0.1:6379'

const nothing = async () => {}

/** `isDurable`: commits in PostgreSQL wait for the disk. Tests need not wait, because none cuts the power. */
export async function freshPlace(scheme: string, { isDurable = false } = {}): Promise<Place> {
  if (scheme === 'memory') return { url: 'memory:', remove: nothing }
  if (scheme === 'sqlite') return freshFile()
  if (scheme === 'postgres') return freshSchema(isDurable ? '' : ' -c synchronous_commit=off')
  if (scheme === 'redis') return freshPrefix(redisUrl, [redisUrl])
  if (scheme === 'rediss') return freshPrefixWithTls()
  if (scheme === 'redis-cluster') return freshPrefixOfCluster()
  if (scheme === 'redis-sentinel') return freshPrefixOfSentinel()
  throw new Error(`no test place for ${scheme}:`)
}

/**
 * Returns the schemes whose servers are available, and prints why the others are missing. With CI=1 it returns all
 * schemes, so that the tests of a missing server fail.
 */
export async function schemesHere(schemes: string[]): Promise<string[]> {
  if (process.env['TEST_STORES'] === 'memory') return schemes.filter(scheme => scheme === 'memory')
  if (process.env['CI']) return schemes
  const probes: Record<string, () => Promise<unknown>> = {
    postgres: () => query('select 1'),
    redis: async () =>
      (await createClient({ url: redisUrl, socket: { reconnectStrategy: false } }).connect()).destroy(),
  }
  const here: string[] = []
  for (const scheme of schemes) {
    const probe = probes[scheme] ?? (async () => {})
    const isHere = await probe().then(
      () => true,
      () => false,
    )
    if (isHere) here.push(scheme)
    else
      console.log(
        `  not tested: ${scheme}:, because ${new URL(scheme === 'redis' ? redisUrl : postgresUrl).host} does not answer`,
      )
  }
  return here
}

async function freshFile(): Promise<Place> {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-'))
  return {
    url: `sqlite:${join(folder, 'latchkey.db')}`,
    async remove() {
      searchFolder(folder)
      rmSync(folder, { recursive: true })
    },
  }
}

async function freshSchema(settings: string): Promise<Place> {
  const schema = `latchkey_${randomUUID().slice(0, 8)}`
  await query(`create schema ${schema}`)
  return {
    url: `${postgresUrl}?options=${encodeURIComponent(`-c search_path=${schema}${settings}`)}`,
    async remove() {
      const tables = await query(`select tablename from pg_tables where schemaname = '${schema}'`)
      for (const { tablename } of tables) {
        const rows = await query(`select entry::text from ${schema}.${tablename} entry`)
        searchForSecrets(JSON.stringify(rows), `the table ${tablename} in PostgreSQL`)
      }
      await query(`drop schema ${schema} cascade`)
    },
  }
}

async function freshPrefixWithTls(): Promise<Place> {
  const { url, tlsPort } = await sharedRedisWithTls()
  return freshPrefix(`rediss://127.0.0.1:${tlsPort}?tls=no-verify`, [url])
}

async function freshPrefixOfCluster(): Promise<Place> {
  const { url, nodes } = await sharedCluster()
  return freshPrefix(
    url,
    nodes.map(node => node.url),
  )
}

async function freshPrefixOfSentinel(): Promise<Place> {
  const { url, master } = await sharedSentinel()
  return freshPrefix(url, [master.url])
}

const clients = new Map<string, ReturnType<typeof newClient>>()

/** Creates one client for each server, because node-redis takes 40 ms of CPU for a client. */
function clientOf(url: string): ReturnType<typeof newClient> {
  const client = clients.get(url) ?? newClient(url)
  clients.set(url, client)
  return client
}

async function newClient(url: string) {
  const client = createClient({ url, socket: { reconnectStrategy: false } })
  client.on('error', () => clients.delete(url)) // the server has ended
  await client.connect()
  client.unref()
  return client
}

async function freshPrefix(url: string, servers: string[]): Promise<Place> {
  const prefix = `latchkey-${randomUUID().slice(0, 8)}:`
  return {
    url: `${url}${url.includes('?') ? '&' : '?'}prefix=${prefix}`,
    async remove() {
      for (const url of servers) {
        const client = await clientOf(url)
        for await (const keys of client.scanIterator({ MATCH: `${prefix}*`, COUNT: 1000 })) {
          const dumps = await Promise.all(keys.map(key => client.dump(key)))
          searchForSecrets(keys.join('\n') + dumps.join('\n'), 'Redis')
          await Promise.all(keys.map(key => client.del(key)))
        }
      }
    },
  }
}

/** Uses its own connection, independent of the store. */
export async function query(text: string, url = postgresUrl): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query(text)).rows
  } finally {
    await client.end()
  }
}

/** Runs `statement` in a transaction on a connection of its own, and ends it when `work` is done: locks stay until then. */
export async function insideTransaction(
  statement: string,
  url: string,
  work: (sameConnection: (text: string) => Promise<Record<string, unknown>[]>) => Promise<void>,
): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(`begin; ${statement}`)
    await work(async text => (await client.query(text)).rows)
    await client.query('commit')
  } finally {
    await client.end()
  }
}
