// Calls to a Redis or Valkey server or cluster. Hides the differences between the two, how scripts are sent, and that nothing
// is sent to a server after a failover until what it may lack has been repeated. server.ts has the connections.
import { hash } from 'node:crypto'
import type { RedisClientType, RedisClusterType } from '@redis/client'
import { within } from '../../../../shared/deadline.ts'
import { createCutOff } from './cutOff.ts'
import { type Durable, openDurable } from './durable.ts'
import { createLineages } from './lineages.ts'
import { parsePlace } from './place.ts'
import { deadlineMs, masters, openServer, type Server } from './server.ts'
import { checkSetUp } from './setUp.ts'

/** A Lua script, which Redis runs as one atomic step. */
export interface Script {
  text: string
  sha1: string
}

export function scriptOf(text: string): Script {
  return { text, sha1: hash('sha1', text, 'hex') }
}

export interface Redis {
  prefix: string
  /** The client of node-redis, another one after a failover. Callers that use it must enforce their own deadline. */
  readonly client: RedisClientType | RedisClusterType
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
  let isOpen = true
  const lineages = createLineages(client =>
    onReplaced((...call) => send(server.isCluster ? server.client : client, ...call)),
  )
  const { server, demoted, close } = await openServer(place, {
    async prepare(server) {
      await checkSetUp(place, server, warn)
      await lineages.learn(await masters(server))
    },
    onReady: address => lineages.suspect(address),
    onMoved() {
      lineages.forget()
      durable?.disconnect()
    },
  })

  const cutOff = server.isCluster ? createCutOff(server.client) : null
  const lookingPast = cutOff === null ? undefined : setInterval(cutOff.lookPast, deadlineMs)

  const durable =
    place.waitReplicas === 0
      ? null
      : openDurable({
          replicas: place.waitReplicas,
          timeoutMs: place.waitTimeoutMs,
          masterOf: key => masterOf(key),
        })

  type Args = (string | number | Buffer)[]

  async function send(client: Server['client'], script: Script, keys: string[], args: Args): Promise<unknown> {
    return evaluate(client, script, keys, textsOf(args)).catch(error => noticeDemotion(error, keys))
  }

  async function noticeDemotion(error: Error, [key = '']: string[]): Promise<never> {
    if (/READONLY/.test(error.message)) demoted()
    await cutOff?.note(error, () => masterOf(key))
    throw error
  }

  const masterOf = async (key: string) =>
    server.isCluster
      ? ((await server.client.getNodeClientForKey(key, false)) as unknown as RedisClientType)
      : server.client

  /** The client to call, once its server lacks nothing. All keys are on one node. */
  async function checked([key = '']: string[]): Promise<Server['client']> {
    if (server.isCluster) {
      if (lineages.hasSuspects()) await lineages.check(await masterOf(key))
      return server.client
    }
    const { client } = server
    if (!client.isReady) throw new Error('there is no connection to Redis')
    if (lineages.hasSuspects()) await lineages.check(client)
    return client
  }

  return {
    prefix: place.prefix,
    get client() {
      return server.client
    },

    async run(work) {
      if (!isOpen) throw new Error('the store is closed')
      return within(deadlineMs, work(), () => new Error(`Redis did not answer within ${deadlineMs} ms`))
    },

    async call(script, keys, args) {
      return send(await checked(keys), script, keys, args)
    },

    async callDurably(script, keys, args) {
      const client = await checked(keys)
      if (durable === null) return send(client, script, keys, args)
      return sendDurably(durable, server.client, script, keys, textsOf(args)).catch(error =>
        noticeDemotion(error, keys),
      )
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
      clearInterval(lookingPast)
      durable?.disconnect()
      close()
    },
  }
}

async function sendDurably(
  durable: Durable,
  client: Server['client'],
  script: Script,
  keys: string[],
  args: (string | Buffer)[],
): Promise<unknown> {
  const [key = ''] = keys
  // Not EVALSHA: if the server does not know the script, the second attempt would wait for the replicas once more.
  const write = (client: RedisClientType) => client.eval(script.text, { keys, arguments: args })
  try {
    return await durable.run(key, write)
  } catch (error) {
    if (!/^MOVED/.test((error as Error).message)) throw error
    await client.get(key) // makes node-redis read the new topology
    return durable.run(key, write)
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
