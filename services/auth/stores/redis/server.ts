// The connections to a Redis or Valkey server, to the master that Sentinels name, or to a cluster. Hides node-redis, how a
// silent server is detected within a second, and how the connection follows the master to another address.
import {
  createClient,
  createCluster,
  ErrorReply,
  type RedisClientOptions,
  type RedisClientType,
  type RedisClusterType,
} from '@redis/client'
import { within } from '../../../../shared/deadline.ts'
import { addressOf } from './lineages.ts'
import { type Address, type Place, SetUpError, sentence } from './place.ts'
import { openSentinels, type Sentinels } from './sentinels.ts'
import { readTlsFiles, type TlsOptions } from './tlsFiles.ts'

/** With Sentinels, `client` is another one after a failover, and the earlier one is closed. */
export type Server = { isCluster: false; client: RedisClientType } | { isCluster: true; client: RedisClusterType }

export interface OpenServer {
  server: Server
  /** To be called when a single server has refused a write because it is a replica. */
  demoted(): void
  close(): void
}

interface ServerOptions {
  /** Called while opening, when the server answers. */
  prepare: (server: Server) => Promise<void>
  /** Called when a connection has been opened, before it is used. */
  onReady: (address: string) => void
  /** Called when Sentinels have named another master, before a connection to it is opened. */
  onMoved: () => void
}

export const deadlineMs = 900 // for a store's answer, so that the client gets its 503 within a second; also for a ping
const openTimeoutMs = 2000
const silentMs = 1500 // a connection that takes longer to open, or is silent for longer, is closed; pings prevent silence
const maxPauseMs = 250 // between two attempts to connect
const refreshMs = 1000 // while a master is down, how often the other nodes are asked for the current topology
const maxPending = 10_000 // commands; further commands are rejected at once

/** Resolves when the server answers and is prepared; rejects with a message for the operator. */
export async function openServer(place: Place, { prepare, onReady, onMoved }: ServerOptions): Promise<OpenServer> {
  let isOpen = false
  let trouble: Error | null = null // the first error, or the latest error reply, which tells more
  const tls = await readTlsFiles(place)
  const sentinels = sentinelsOf(place, tls)
  const address = sentinels ? await firstMaster(place, sentinels) : (place.nodes[0] as Address)
  const hooks: Hooks = {
    keepsTrying: () => isOpen,
    onReady,
    onError(error) {
      if (trouble === null || error instanceof ErrorReply) trouble = error
      if (isOpen) void follow()
    },
  }
  const server: Server = place.isCluster
    ? { isCluster: true, client: createClusterClient(place, tls, hooks) }
    : { isCluster: false, client: createServerClient(address, place, tls, hooks) }

  try {
    const open = async () => {
      await server.client.connect()
      await prepare(server)
    }
    await within(openTimeoutMs, open(), () => trouble ?? new Error('no answer'))
    isOpen = true
  } catch (error) {
    server.client.destroy()
    sentinels?.close()
    const isClear = error instanceof SetUpError || error instanceof ErrorReply
    const cause = isClear ? error : (trouble ?? (error as Error))
    throw new Error(sentence(place, cause, address), { cause: error })
  }

  /** Clients that had no answer since the last check, or lead to a former master. */
  const suspects = new Set<RedisClientType>()
  const watch = setInterval(() => {
    renewSilent(server, suspects)
    void follow()
  }, deadlineMs)

  let isAsking = false
  /** Moves to the master that the Sentinels name. */
  async function follow(): Promise<void> {
    if (sentinels === null || isAsking) return
    isAsking = true
    const master = await sentinels.findMaster().catch(() => null) // if no Sentinel answers, everything stays as it is
    isAsking = false
    if (master === null || !isOpen || server.isCluster) return
    const former = server.client
    if (addressOf(former) === `${master.host}:${master.port}`) return
    // Closed before the new one is open: whatever the former master acknowledges is repeated at the new one.
    former.destroy()
    suspects.delete(former)
    onMoved()
    server.client = createServerClient(master, place, tls, hooks)
    server.client.connect().catch(() => {}) // rejects if the client is closed in the meantime
  }

  return {
    server,

    demoted() {
      // After a failover the address leads to the new master, but an open connection still leads to the old one.
      if (!server.isCluster) suspects.add(server.client)
      void follow()
    },

    close() {
      isOpen = false
      clearInterval(watch)
      server.client.destroy()
      sentinels?.close()
    },
  }
}

function sentinelsOf(place: Place, tls: TlsOptions): Sentinels | null {
  if (place.sentinel === null) return null
  const { masterName, username, password } = place.sentinel
  return openSentinels(place.nodes, masterName, {
    ...(username !== undefined && { username }),
    ...(password !== undefined && { password }),
    disableOfflineQueue: true,
    socket: { connectTimeout: silentMs, socketTimeout: silentMs, ...tls },
  })
}

async function firstMaster(place: Place, sentinels: Sentinels): Promise<Address> {
  try {
    return await sentinels.findMaster()
  } catch (error) {
    sentinels.close()
    throw new Error(sentence(place, error as Error, null), { cause: error })
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

interface Hooks {
  keepsTrying: () => boolean
  onError: (error: Error) => void
  onReady: (address: string) => void
}

const commandOptions = { timeout: 0 } // no AbortSignal per command, since `run` already enforces a deadline

function clientOptions({ username, password }: Place, tls: TlsOptions, keepsTrying: () => boolean) {
  return {
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
      ...tls,
    },
  }
}

/** Creates the client without connecting it. */
function createServerClient(address: Address, place: Place, tls: TlsOptions, hooks: Hooks): RedisClientType {
  const options = clientOptions(place, tls, hooks.keepsTrying)
  const socket = { ...options.socket, ...address } as RedisClientOptions['socket'] & object
  const { database } = place
  const client = createClient({ ...options, commandOptions, database, socket }) as unknown as RedisClientType
  client.on('error', (error: Error) => onClientError(error, client, hooks))
  client.on('ready', () => hooks.onReady(addressOf(client)))
  return client
}

/** Creates the client without connecting it. */
function createClusterClient(place: Place, tls: TlsOptions, hooks: Hooks): RedisClusterType {
  const client = createCluster({
    rootNodes: place.nodes.map(socket => ({ socket })),
    defaults: clientOptions(place, tls, hooks.keepsTrying),
    commandOptions,
    topologyRefreshOnReconnectionAttemptStrategy: refreshMs,
  }) as unknown as RedisClusterType
  client.on('error', hooks.onError)
  client.on('node-ready', ({ host, port }: Address) => hooks.onReady(`${host}:${port}`))
  client.on('node-error', (error: Error, { host, port }: Address) => {
    const node = client.nodeByAddress.get(`${host}:${port}`)?.client
    onClientError(error, node as RedisClientType | undefined, hooks)
  })
  return client
}

/**
 * If a client is still ready after an error, it has received garbage, and might match later replies to the wrong
 * commands. After any other error it is no longer ready.
 */
function onClientError(error: Error, client: RedisClientType | undefined, { onError }: Hooks): void {
  onError(error)
  if (client?.isReady) renew(client)
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

/** A client for each master. */
export function masters(server: Server): Promise<RedisClientType[]> {
  if (!server.isCluster) return Promise.resolve([server.client])
  const { client } = server
  return Promise.all(client.masters.map(master => client.nodeClient(master))) as Promise<RedisClientType[]>
}
