// Asks a deployment and remembers every answer. Hides connections, deadlines, and what the codes of failed ones mean.
import http, { type IncomingHttpHeaders } from 'node:http'
import https from 'node:https'
import { text } from 'node:stream/consumers'
import type { TLSSocket } from 'node:tls'

export interface Answer {
  method: string
  origin: string
  path: string
  status: number
  headers: IncomingHttpHeaders
  text: string
  /** Of a body that is a JSON object; else empty. */
  body: Record<string, unknown>
  ms: number
  /** Of TLS. */
  secure: { protocol: string; certificateDays: number } | null
}

export interface Question {
  /** Names and values by turns, so that one may be there twice. */
  headers?: string[]
  bearer?: string
  /** Goes as JSON, or as it is where it is a string. */
  body?: unknown
  /** On a connection of its own: behind a balancer the next process may get it. */
  fresh?: boolean
}

/** What is wrong, in words for whoever is on call. */
export class Fault extends Error {}

export type Client = ReturnType<typeof openClient>

const answerMs = 5000

/** `budgetMs`: what all questions together may take. */
export function openClient(budgetMs: number) {
  const endsAt = performance.now() + budgetMs
  const agents = { 'http:': new http.Agent({ keepAlive: true }), 'https:': new https.Agent({ keepAlive: true }) }
  const answers: Answer[] = []

  async function ask(method: string, address: string, question: Question = {}): Promise<Answer> {
    const { protocol, origin, pathname } = new URL(address)
    const { headers = [], bearer, body, fresh } = question
    const sent = [...headers, 'Accept', 'application/json']
    if (bearer !== undefined) sent.push('Authorization', `Bearer ${bearer}`)
    const content = body === undefined || typeof body === 'string' ? body : JSON.stringify(body)
    if (content !== undefined) {
      if (!headers.includes('Content-Type')) sent.push('Content-Type', 'application/json')
      sent.push('Content-Length', String(Buffer.byteLength(content)))
    }
    if (fresh) sent.push('Connection', 'close')
    sent.push('Host', new URL(address).host)
    const leftMs = endsAt - performance.now()
    if (leftMs <= 0) throw new Fault(`not asked: ${budgetMs / 1000} seconds are over; the answers before were too slow`)
    const startedAt = performance.now()
    const signal = AbortSignal.timeout(Math.min(answerMs, leftMs))
    try {
      const { request } = protocol === 'https:' ? https : http
      const agent = fresh ? false : agents[protocol as keyof typeof agents]
      const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>()
      const outgoing = request(address, { method, headers: sent, agent, signal })
      outgoing.once('response', resolve).once('error', reject).end(content)
      const incoming = await promise
      const secure = protocol === 'https:' ? describeTls(incoming.socket as TLSSocket) : null
      const answer = {
        method,
        origin,
        path: pathname,
        status: incoming.statusCode as number,
        headers: incoming.headers,
        text: await text(incoming),
        ms: performance.now() - startedAt,
        secure,
      }
      const complete = { ...answer, body: objectIn(answer.text) }
      answers.push(complete)
      return complete
    } catch (error) {
      throw new Fault(`${method} ${pathname}: ${whyNoAnswer(error as NodeJS.ErrnoException, new URL(address))}`)
    }
  }

  return {
    ask,
    answers,
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

function objectIn(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}

function whyNoAnswer({ code = '', name, message }: NodeJS.ErrnoException, { origin, hostname }: URL): string {
  if (name === 'AbortError' || name === 'TimeoutError' || code === 'ETIMEDOUT') {
    return `no answer from ${origin} in time: a firewall that drops packets, or a process that hangs`
  }
  if (code === 'ECONNREFUSED') {
    return `nothing listens at ${origin} (connection refused): is it running, and is this the right port?`
  }
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return `the name ${hostname} cannot be resolved here`
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH') return `there is no way from here to ${hostname}`
  if (code === 'CERT_HAS_EXPIRED') return `the certificate of ${origin} has expired: clients refuse it`
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return `the certificate of ${origin} is for another name than ${hostname}`
  if (/SELF_SIGNED|UNABLE_TO_(GET_ISSUER|VERIFY)/.test(code)) {
    return `nobody here vouches for the certificate of ${origin} (${code}); where it is your own: NODE_EXTRA_CA_CERTS=ca.pem`
  }
  if (code === 'EPROTO' || code.startsWith('ERR_SSL')) return `${origin} does not speak TLS: is it http://?`
  if (code === 'ECONNRESET') {
    return `${origin} cut the connection without an answer: something in front of it refuses us, or it speaks TLS and this is http://`
  }
  if (code.startsWith('HPE_')) return `what ${origin} answers is not HTTP/1.1 (${code})`
  return `no answer from ${origin} (${code || message})`
}
