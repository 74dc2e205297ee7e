// Sends requests to a deployment and records every exchange. Hides connections, timeouts, and the meaning of network errors.
import http, { type IncomingHttpHeaders } from 'node:http'
import https from 'node:https'
import { text } from 'node:stream/consumers'
import type { TLSSocket } from 'node:tls'

/** A request and its response. */
export interface Exchange {
  method: string
  origin: string
  path: string
  status: number
  headers: IncomingHttpHeaders
  text: string
  /** The response body if it is a JSON object, otherwise empty. */
  body: Record<string, unknown>
  durationMs: number
  /** Null over HTTP. */
  tls: { protocol: string; certificateDays: number } | null
}

export interface RequestOptions {
  /** Alternating names and values, so that a header can occur twice. */
  headers?: string[]
  bearer?: string
  /** A string is sent as it is, anything else as JSON. */
  body?: unknown
  /** Uses a new connection, which a load balancer may route to another process. */
  newConnection?: boolean
}

/** A check failed. The message is for the operator. */
export class CheckFailure extends Error {}

export type SmokeClient = ReturnType<typeof openClient>

export interface SmokeTimes {
  /** Limits the total time of all requests. */
  budgetMs: number
  /** Limits each request. */
  responseTimeoutMs: number
}

export function openClient({ budgetMs, responseTimeoutMs }: SmokeTimes) {
  const endsAt = performance.now() + budgetMs
  const agents = { 'http:': new http.Agent({ keepAlive: true }), 'https:': new https.Agent({ keepAlive: true }) }
  const exchanges: Exchange[] = []

  async function send(method: string, address: string, options: RequestOptions = {}): Promise<Exchange> {
    const url = new URL(address)
    const leftMs = endsAt - performance.now()
    if (leftMs <= 0) {
      throw new CheckFailure(
        `not checked: the earlier responses were so slow that ${budgetMs / 1000} seconds have passed`,
      )
    }
    const startedAt = performance.now()
    try {
      const response = await open(
        method,
        url,
        options,
        AbortSignal.timeout(Math.ceil(Math.min(responseTimeoutMs, leftMs))),
      )
      const tls = url.protocol === 'https:' ? describeTls(response.socket as TLSSocket) : null
      const content = await text(response)
      const exchange = {
        method,
        origin: url.origin,
        path: url.pathname,
        status: response.statusCode as number,
        headers: response.headers,
        text: content,
        body: parseObject(content),
        durationMs: performance.now() - startedAt,
        tls,
      }
      exchanges.push(exchange)
      return exchange
    } catch (error) {
      throw new CheckFailure(`${method} ${url.pathname}: ${explainNetworkError(error as NodeJS.ErrnoException, url)}`)
    }
  }

  function open(
    method: string,
    url: URL,
    { headers = [], bearer, body, newConnection = false }: RequestOptions,
    signal: AbortSignal,
  ): Promise<http.IncomingMessage> {
    const sent = [...headers, 'Accept', 'application/json', 'Host', url.host]
    if (bearer !== undefined) sent.push('Authorization', `Bearer ${bearer}`)
    const content = body === undefined || typeof body === 'string' ? body : JSON.stringify(body)
    if (content !== undefined) {
      if (!headers.includes('Content-Type')) sent.push('Content-Type', 'application/json')
      sent.push('Content-Length', String(Buffer.byteLength(content)))
    }
    if (newConnection) sent.push('Connection', 'close')
    const { request } = url.protocol === 'https:' ? https : http
    const agent = newConnection ? false : agents[url.protocol as keyof typeof agents]
    const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>()
    const outgoing = request(url, { method, headers: sent, agent, signal })
    outgoing.once('response', resolve).once('error', reject).end(content)
    return promise
  }

  return {
    send,
    /** Every exchange so far, in the order of the responses. */
    exchanges,
    close(): void {
      for (const agent of Object.values(agents)) agent.destroy()
    },
  }
}

function describeTls(socket: TLSSocket) {
  const { valid_to: end } = socket.getPeerCertificate()
  return {
    protocol: socket.getProtocol() ?? 'unknown',
    certificateDays: Math.floor((Date.parse(end) - Date.now()) / 86_400_000),
  }
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}

function explainNetworkError({ code = '', name, message }: NodeJS.ErrnoException, { origin, hostname }: URL): string {
  if (name === 'AbortError' || name === 'TimeoutError' || code === 'ETIMEDOUT') {
    return `${origin} did not respond in time: a firewall drops packets, or a process hangs`
  }
  if (code === 'ECONNREFUSED') {
    return `nothing listens at ${origin} (connection refused): check that it runs and that the port is right`
  }
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return `the name ${hostname} does not resolve`
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH') return `there is no route to ${hostname}`
  if (code === 'CERT_HAS_EXPIRED') return `the certificate of ${origin} has expired, so clients refuse it`
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return `the certificate of ${origin} is not valid for ${hostname}`
  if (/SELF_SIGNED|UNABLE_TO_(GET_ISSUER|VERIFY)/.test(code)) {
    return `the issuer of the certificate of ${origin} is not trusted (${code}); if it is your own, set NODE_EXTRA_CA_CERTS=ca.pem`
  }
  if (code === 'EPROTO' || code.startsWith('ERR_SSL')) return `${origin} does not speak TLS: try http://`
  if (code === 'ECONNRESET') {
    return `${origin} closed the connection without a response: a proxy refuses this client, or the server expects https://`
  }
  if (code.startsWith('HPE_')) return `the response of ${origin} is not HTTP/1.1 (${code})`
  return `${origin} did not respond (${code || message})`
}
