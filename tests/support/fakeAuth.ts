// A fake Auth: a real listener that reads each call completely, records it, and lets a behaviour answer. Hides HTTP: an
// answer is the correct one with changes, which may break the protocol.
import { EventEmitter, once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { Admission, Verdict } from '../../packages/client/contract.ts'

/** Undefined leaves a header out, an array sends it once for each value. */
type Headers = Record<string, string | string[] | undefined>

/** The differences from the correct answer. */
export interface Changes {
  status?: number
  headers?: Headers
  /** A string or a buffer is sent as it is, anything else as JSON. */
  body?: unknown
}

export interface AuthCall {
  /** Method, target and version, as on the wire. */
  requestLine: string
  /** Names are in lower case. */
  headers: Record<string, string>
  requestId: string
  /** As it was sent. */
  body: string
  /** Empty if the call has none. */
  tokens: string[]
  /** Empty if the call has none. */
  held: string[]
  socket: Socket
  /** The correct answer with `changes`, as bytes. */
  compose(changes?: Changes): Buffer
  /** Sends the correct answer with `changes`. */
  reply(changes?: Changes): void
  /** Sends these bytes as the answer. */
  send(answer: Buffer): void
}

export type Behaviour = (call: AuthCall) => void

/** A token that begins with `good` is admitted under its own name; every other token is refused. */
export function verdictFor(token: string): Verdict {
  return token.startsWith('good') ? admissionOf(token) : { authenticated: false }
}

export function admissionOf(token: string): Admission {
  return {
    authenticated: true,
    tokenId: `id-of-${token}`.slice(0, 40),
    kind: 'sliding',
    username: token.slice(0, 40),
    userId: `user-of-${token}`.slice(0, 40),
    createdAt: 1_800_000_000_000,
    expiresAt: 1_800_000_030_000,
    absoluteExpiresAt: 1_800_043_200_000,
    refreshCount: 1,
    roles: [],
    scope: null,
    keyName: null,
    actor: null,
  }
}

export const behaveWell: Behaviour = call => call.reply()

/** Accepts the call and does not answer. Answer later with `calls[i].reply()`. */
export const hold: Behaviour = () => {}

/** Writes `chunk` repeatedly, as fast as the client reads, up to `limit` bytes or until the client disconnects. */
export function pour(socket: Socket, chunk: Buffer, limit: number): void {
  let poured = 0
  // After an error the socket is not destroyed yet, and would report every further write to `more` at once, for ever.
  function more(error?: Error | null): void {
    if (error || socket.destroyed || poured >= limit) return
    poured += chunk.length
    socket.write(chunk, more)
  }
  more()
}

/** Writes `bytes` one at a time, `everyMs` apart, until the client disconnects. */
export function drip(socket: Socket, bytes: Buffer, everyMs: number): void {
  let at = 0
  const timer = setInterval(() => socket.write(bytes.subarray(at, ++at)), everyMs)
  socket.once('close', () => clearInterval(timer))
}

export type FakeAuth = Awaited<ReturnType<typeof startFakeAuth>>

export async function startFakeAuth(host = '127.0.0.1', port = 0) {
  const events = new EventEmitter()
  const sockets = new Set<Socket>()
  const unanswered = new Set<AuthCall>()
  const calls: AuthCall[] = []
  let behaviour = behaveWell
  let connectionCount = 0
  let maxInFlight = 0

  const server = createServer({ noDelay: true }, socket => {
    connectionCount++
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => {
      sockets.delete(socket)
      for (const call of unanswered) if (call.socket === socket) unanswered.delete(call)
    })
    let unread = Buffer.alloc(0)
    socket.on('data', chunk => {
      unread = Buffer.concat([unread, chunk])
      for (;;) {
        const headEnd = unread.indexOf('\r\n\r\n')
        if (headEnd < 0) return
        const [requestLine = '', ...lines] = unread.toString('latin1', 0, headEnd).split('\r\n')
        const headers = Object.fromEntries(lines.map(readHeader))
        const bodyEnd = headEnd + 4 + Number(headers['content-length'] ?? 0)
        if (unread.length < bodyEnd) return
        const body = unread.toString('utf8', headEnd + 4, bodyEnd)
        unread = unread.subarray(bodyEnd)
        receive(socket, requestLine, headers, body)
      }
    })
  })

  function receive(socket: Socket, requestLine: string, headers: Record<string, string>, body: string): void {
    const requestId = headers['x-request-id'] ?? ''
    if (requestLine.startsWith('GET /ready ')) {
      socket.write(composeAnswer(requestId, { status: 'ready' })) // behaviours do not apply to /ready
      return
    }
    const { tokens = [], held } = readBody(body)
    const answer = { verdicts: tokens.map(verdictFor), ...(held && { held: held.map(verdictFor) }) }
    const compose = (changes: Changes = {}) => composeAnswer(requestId, answer, changes)
    const call: AuthCall = {
      requestLine,
      headers,
      requestId,
      body,
      tokens,
      held: held ?? [],
      socket,
      compose,
      reply: changes => call.send(compose(changes)),
      send(answer) {
        unanswered.delete(call)
        if (!socket.destroyed) socket.write(answer)
      },
    }
    calls.push(call)
    unanswered.add(call)
    maxInFlight = Math.max(maxInFlight, unanswered.size)
    behaviour(call)
    events.emit('call')
  }

  async function listen(): Promise<void> {
    if (server.listening) return
    server.listen(port, host)
    await once(server, 'listening')
    port = (server.address() as AddressInfo).port
  }

  await listen()
  return {
    port,
    url: `http://${host}:${port}`,
    host: `${host}:${port}`,
    /** Every call since `reset`, in order of arrival. */
    calls,
    /** Every token in the calls since `reset`, as often as it was sent. */
    tokens: () => calls.flatMap(call => call.tokens),
    connectionCount: () => connectionCount,
    openConnections: () => sockets.size,
    /** The largest number of unanswered calls at one time since `reset`. */
    maxInFlight: () => maxInFlight,

    behave(next: Behaviour): void {
      behaviour = next
    },

    /** Forgets all calls, disconnects clients that still wait, and answers correctly from now on. */
    reset(): void {
      for (const { socket } of unanswered) socket.destroy()
      unanswered.clear()
      calls.length = 0
      maxInFlight = 0
      behaviour = behaveWell
    },

    /** Resolves once the fake has been called `count` times since `reset`. */
    async called(count: number): Promise<void> {
      while (calls.length < count) await once(events, 'call')
    },

    /** Closes the connections without an unanswered call. Resolves once the clients have closed them too. */
    async disconnectIdle(): Promise<void> {
      const busy = new Set([...unanswered].map(call => call.socket))
      const idle = [...sockets].filter(socket => !busy.has(socket))
      const closed = idle.map(socket => once(socket, 'close'))
      for (const socket of idle) socket.end()
      await Promise.all(closed)
    },

    /** Closes every connection and refuses new ones. */
    async stop(): Promise<void> {
      if (!server.listening) return
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },

    /** Listens again, on the same port. */
    listen,
  }
}

function readHeader(line: string): [string, string] {
  const colon = line.indexOf(':')
  return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
}

/** Leaves out what is no list. */
function readBody(body: string): { tokens?: string[]; held?: string[] } {
  try {
    const members = Object.entries(Object(JSON.parse(body)) as object)
    return Object.fromEntries(members.filter(([, value]) => Array.isArray(value)))
  } catch {
    return {}
  }
}

function composeAnswer(requestId: string, answer: object, { status = 200, headers, body }: Changes = {}): Buffer {
  const content = body === undefined ? answer : body
  const bytes = Buffer.isBuffer(content)
    ? content
    : Buffer.from(typeof content === 'string' ? content : JSON.stringify(content))
  const fields: Headers = {
    'content-type': 'application/json; charset=utf-8',
    'x-request-id': requestId,
    'content-length': String(bytes.length),
    ...headers,
  }
  const lines = Object.entries(fields).flatMap(([name, value]) =>
    value === undefined ? [] : [value].flat().map(one => `${name}: ${one}\r\n`),
  )
  return Buffer.concat([Buffer.from(`HTTP/1.1 ${status} Fake\r\n${lines.join('')}\r\n`), bytes])
}
