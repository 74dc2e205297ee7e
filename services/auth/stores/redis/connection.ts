// The connection to a Redis or Valkey server or cluster. Hides node-redis, the differences between a server and a
// cluster, and how a silent server is detected within a second.
import { createClient, createCluster, ErrorReply, type RedisClientType, type RedisClusterType } from '@redis/client'
import { within } from '../../../../shared/deadline.ts'
import { openDurable } from './durable.ts'
import { addressOf, createLineages } from './lineages.ts'
import { type Place, parsePlace, SetUpError, sentence } from './place.ts'
import type { Script } from './scripts.ts'

export interface Redis {
  prefix: string
  /** The client of node-redis. Callers that use it must enforce their own deadline. */
  client: RedisClientType | RedisClusterType
  /** Resolves to the result of `work`. Rejects once closed, or after `deadlineMs`; `work` may still complete after that. */
  run<T>(work: () => Promise<T>): Promise<T>
  /** One round trip. All keys must be on the same node; see `together`. */
  call(script: Script, keys: string[], args: (string | number | Buffer)[]): Promise<unknown>
  /** Like `call`, but resolves only when the replicas that the URL demands have the change. All keys are on one node. */
  callDurably(script: Script, keys: string[], args: (string | number | Buffer)[]): Promise<unknown>
  get(key: string): Promise<string | null>
  /** Fire and forget: tried once, and failures are ignored. */
  setFor(key: string, value: string, ms: number): void
  /** Groups the keys, by their indexes, so that the keys of each group may go into one call. */
  together(keys: string[]): number[][]
  /** About `count` keys that match the pattern. `cursor` is null for the first page; `next` is null after the last. */
  page(pattern: string, cursor: string | null, count: number): Promise<{ keys: string[]; next: string | null }>
  /** Yields, in chunks, all keys that match the pattern, some perhaps twice. Cannot be resumed after it rejects. */
  scan(pattern: string): AsyncGenerator<{ keys: string[]; isAtEnd: boolean }, void>
  /** Epoch milliseconds; in a cluster the median of the masters. */
  time(): Promise<number>
  close(): Promise<void>
}

type Server = { isCluster: false; client: RedisClientType } | { isCluster: true; client: RedisClusterType }

const deadlineMs = 900 // for a store's answer, so that the client gets its 503 within a second; also for a ping
const openTimeoutMs = 2000
const silentMs = 1500 // a connection that takes longer to open, or is silent for longer, is closed; pings prevent silence
const maxPauseMs = 250 // between two attempts to connect
const refreshMs = 1000 // while a master is down, how often the other nodes are asked for the current topology
const maxPending = 10_000 // commands; further commands are rejected at once
const keysPerScan = 1000

export interface RedisOptions {
  warn: (warning: string) => void
  /**
   * Called after a failover, before any other call reaches the new server. `send` reaches it. Calls reject until this has
   * resolved.
   */
  onReplaced: (send: Redis['call']) => Promise<void>
}

/** Resolves when the server answers and is configured not to lose data; rejects with a message for the operator. */
export async function openRedis(url: string, { warn, onReplaced }: RedisOptions): Promise<Redis> {
  const place = parsePlace(url)
  let isOpen = false
  let trouble: Error | null = null // the first error, or the latest error reply, which tells more
  const lineages = createLineages(() => onReplaced(send))
  const server = createServer(place, {
    keepsTrying: () => isOpen,
    onReady: address => lineages.suspect(address),
    onError(error) {
      if (trouble === null || error instanceof ErrorReply) trouble = error
    },
  })
  try {
    const open = async () => {
      await server.client.connect()
      await checkSetUp(place, server, warn)
      await lineages.learn(await masters(server))
    }
    await within(openTimeoutMs, open(), () => trouble ?? new Error('no answer'))
    isOpen = true
  } catch (error) {
    server.client.destroy()
    const isClear = error instanceof SetUpError || error instanceof ErrorReply
    throw new Error(sentence(place, isClear ? error : (trouble ?? (error as Error))), { cause: error })
  }

  /** Clients that had no answer since the last check, or lead to a former master. */
  const suspects = new Set<RedisClientType>()
  const watch = setInterval(() => renewSilent(server, suspects), deadlineMs)

  const durable =
    place.waitReplicas === 0
      ? null
      : openDurable({
          replicas: place.waitReplicas,
          timeoutMs: place.waitTimeoutMs,
          masterOf: key => masterOf(key),
        })

  async function send(script: Script, keys: string[], args: (string | number | Buffer)[]): Promise<unknown> {
    try {
      return await evaluate(server.client, script, keys, textsOf(args))
    } catch (error) {
      // After a failover the address leads to the new master, but an open connection still leads to the old one.
      if (!server.isCluster && /READONLY/.test((error as Error).message)) suspects.add(server.client)
      throw error
    }
  }

  const masterOf = async (key: string) =>
    server.isCluster
      ? ((await server.client.getNodeClientForKey(key, false)) as unknown as RedisClientType)
      : server.client

  /** All keys are on one node. */
  async function checkLineage([key = '']: string[]): Promise<void> {
    if (lineages.hasSuspects()) await lineages.check(await masterOf(key))
  }

  async function evaluateDurably(script: Script, keys: string[], args: (string | Buffer)[]): Promise<unknown> {
    if (durable === null) return evaluate(server.client, script, keys, args)
    const [key = ''] = keys
    // Not EVALSHA: if the server does not know the script, the second attempt would wait for the replicas once more.
    const write = (client: RedisClientType) => client.eval(script.text, { keys, arguments: args })
    try {
      return await durable.run(key, write)
    } catch (error) {
      if (!/^MOVED/.test((error as Error).message)) throw error
      await server.client.get(key) // makes node-redis read the new topology
      return durable.run(key, write)
    }
  }

  return {
    prefix: place.prefix,
    client: server.client,

    async run(work) {
      if (!isOpen) throw new Error('the store is closed')
      return within(deadlineMs, work(), () => new Error(`Redis did not answer within ${deadlineMs} ms`))
    },

    async call(script, keys, args) {
      await checkLineage(keys)
      return send(script, keys, args)
    },

    async callDurably(script, keys, args) {
      await checkLineage(keys)
      return evaluateDurably(script, keys, textsOf(args))
    },

    get: key => server.client.get(key),

    setFor(key, value, ms) {
      server.client.set(key, value, { expiration: { type: 'PX', value: ms } }).catch(() => {})
    },

    together(keys) {
      if (keys.length === 0) return []
      if (!server.isCluster) return [[...keys.keys()]]
      const places = new Map<string, number[]>()
      for (const [i, key] of keys.entries()) {
        const same = places.get(key)
        if (same) same.push(i)
        else places.set(key, [i])
      }
      return [...places.values()]
    },

    async page(pattern, cursor, count) {
      const match = /^(\d{1,4}):(\d{1,20})$/.exec(cursor ?? '0:0')
      const place = Number(match?.[1] ?? Infinity)
      const nodes = await masters(server)
      const node = nodes[place]
      if (node === undefined) return { keys: [], next: null }
      const answer = await node.scan(match?.[2] ?? '0', { MATCH: pattern, COUNT: count })
      const following = answer.cursor === '0' ? place + 1 : place
      return { keys: answer.keys, next: following < nodes.length ? `${following}:${answer.cursor}` : null }
    },

    async *scan(pattern) {
      const nodes = await masters(server)
      for (const [i, node] of nodes.entries()) {
        let cursor = '0'
        do {
          const answer = await node.scan(cursor, { MATCH: pattern, COUNT: keysPerScan })
          cursor = answer.cursor
          yield { keys: answer.keys, isAtEnd: cursor === '0' && i === nodes.length - 1 }
        } while (cursor !== '0')
      }
    },

    async time() {
      const answers = await Promise.all((await masters(server)).map(node => node.time()))
      const times = answers.map(([seconds, microseconds]) => Number(seconds) * 1000 + Number(microseconds) / 1000)
      return times.sort((a, b) => a - b)[Math.floor(times.length / 2)] as number
    },

    async close() {
      isOpen = false
      clearInterval(watch)
      durable?.close()
      server.client.destroy()
    },
  }
}

function textsOf(args: (string | number | Buffer)[]): (string | Buffer)[] {
  return args.map(arg => (typeof arg === 'number' ? String(arg) : arg))
}

async function evaluate(
  client: Server['client'],
  { sha1, text }: Script,
  keys: string[],
  args: (string | Buffer)[],
): Promise<unknown> {
  const options = { keys, arguments: args }
  try {
    return await client.evalSha(sha1, options)
  } catch (error) {
    // The server was restarted, or its script cache was flushed.
    if (!/^NOSCRIPT/.test((error as Error).message)) throw error
    return client.eval(text, options)
  }
}

/** Opens the connections anew that were suspects before, and makes all others suspects until they answer a ping. */
function renewSilent(server: Server, suspects: Set<RedisClientType>): void {
  for (const { client, connectPromise } of nodesOf(server)) {
    if (!client || !(client.isReady || connectPromise)) continue // disconnected; node-redis is already reconnecting
    if (suspects.delete(client) || !client.isOpen) {
      // If a new master of a cluster is unreachable, node-redis keeps waiting for it and does not look for another.
      if (connectPromise) client.destroy()
      else renew(client)
    } else {
      suspects.add(client)
      const forget = () => suspects.delete(client)
      const sign: Promise<unknown> = connectPromise ?? client.ping()
      sign.then(forget, forget)
    }
  }
}

interface ServerOptions {
  keepsTrying: () => boolean
  onError: (error: Error) => void
  /** Called when a connection has been opened, before it is used. */
  onReady: (address: string) => void
}

/** Creates the client without connecting it. */
function createServer(place: Place, { keepsTrying, onError, onReady }: ServerOptions): Server {
  const { isCluster, nodes, tls, username, password, database } = place
  const options = {
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    disableOfflineQueue: true, // without a connection, reject at once
    commandsQueueMaxLength: maxPending,
    socket: {
      connectTimeout: silentMs,
      socketTimeout: silentMs,
      // While opening, returns false, so that the cause is reported at once. Later, always returns a delay, because by
      // default node-redis gives up for good after a socket timeout.
      reconnectStrategy: (retries: number) => keepsTrying() && Math.min(50 * 2 ** retries, maxPauseMs),
      ...(tls !== 'off' && { tls: true as const, rejectUnauthorized: tls === 'verify' }),
    },
  }
  const commandOptions = { timeout: 0 } // no AbortSignal per command, since `run` already enforces a deadline

  /**
   * If a client is still ready after an error, it has received garbage, and might match later replies to the wrong
   * commands. After any other error it is no longer ready.
   */
  function onClientError(error: Error, client: RedisClientType | undefined): void {
    onError(error)
    if (client?.isReady) renew(client)
  }

  if (!isCluster) {
    const socket = { ...options.socket, ...nodes[0] }
    const client = createClient({ ...options, commandOptions, database, socket }) as unknown as RedisClientType
    client.on('error', (error: Error) => onClientError(error, client))
    client.on('ready', () => onReady(addressOf(client)))
    return { isCluster, client }
  }
  const client = createCluster({
    rootNodes: nodes.map(socket => ({ socket })),
    defaults: options,
    commandOptions,
    topologyRefreshOnReconnectionAttemptStrategy: refreshMs,
  }) as unknown as RedisClusterType
  client.on('error', onError)
  client.on('node-ready', ({ host, port }: { host: string; port: number }) => onReady(`${host}:${port}`))
  client.on('node-error', (error: Error, { host, port }: { host: string; port: number }) =>
    onClientError(error, client.nodeByAddress.get(`${host}:${port}`)?.client as RedisClientType | undefined),
  )
  return { isCluster, client }
}

/** Replaces an unusable connection: rejects its pending commands and opens a new one. */
function renew(client: RedisClientType): void {
  client.destroy()
  client.connect().catch(() => {}) // rejects if the client was closed in the meantime
}

interface Node {
  client?: RedisClientType | undefined
  /** Set while the first connection to a master is being opened. */
  connectPromise?: Promise<unknown> | undefined
}

function nodesOf(server: Server): Node[] {
  return server.isCluster ? (server.client.masters as unknown as Node[]) : [{ client: server.client }]
}

function masters(server: Server): Promise<RedisClientType[]> {
  if (!server.isCluster) return Promise.resolve([server.client])
  const { client } = server
  return Promise.all(client.masters.map(master => client.nodeClient(master))) as Promise<RedisClientType[]>
}

/** Rejects if the server may evict keys: losing a floor would make revoked tokens valid again. */
async function checkSetUp(place: Place, server: Server, warn: (warning: string) => void): Promise<void> {
  const addresses: Place['nodes'] = server.isCluster ? server.client.masters : place.nodes
  for (const [i, node] of (await masters(server)).entries()) {
    const info = await node.info()
    if (!server.isCluster && /^cluster_enabled:1/m.test(info)) {
      throw new SetUpError('is part of a cluster: begin the URL with redis-cluster://')
    }
    const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1] ?? 'unknown'
    if (policy !== 'noeviction' && place.eviction === 'refused') {
      throw new SetUpError(
        `has maxmemory-policy ${policy}: when its memory is full it forgets sessions and revocations. Set it to noeviction, or add eviction=allowed to the query of the URL`,
      )
    }
    const replicas = Number(/^connected_slaves:(\d+)/m.exec(info)?.[1] ?? 0)
    if (replicas < place.waitReplicas) {
      throw new SetUpError(
        `has ${replicas} connected replicas, and REDIS_WAIT_REPLICAS is ${place.waitReplicas}: no revocation could be acknowledged. Connect more replicas, or lower the setting`,
      )
    }
    if (/^aof_enabled:0/m.test(info)) {
      const { host, port } = addresses[i] as Place['nodes'][number]
      warn(
        `the Redis server at ${host}:${port} has no append-only file (appendonly no): if it stops without a snapshot, sessions are lost and tokens revoked since the last snapshot may be valid again.`,
      )
    }
  }
}
