// Checks every answer that a server in this process gives in a test against the OpenAPI document of its
// listener, if the listener has one, and searches errors for secrets. A test fails if an answer during it does not conform.
import { subscribe } from 'node:diagnostics_channel'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { ValidateFunction } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { searchForSecrets } from './canaries.ts'

interface Operation {
  responses: Record<string, { content?: Record<string, { schema: object }> }>
}

interface Document {
  paths: Record<string, Record<string, Operation>>
}

const problemRef = { $ref: '#/components/schemas/Problem' }

interface Listener {
  /** `METHOD template` -> the operation. */
  operations: Map<string, Operation>
  /** References resolve within the document of this listener. */
  validatorOf(schema: object): ValidateFunction
}

/** Cached by document, because compiling the schemas for each Auth of a test would take most of the time. */
const listeners = new Map<string, Listener>()
/** The documents by port. */
const known = new Map<number, Listener>()
const violations: string[] = []

// The answer to a path or method without an operation is not in the document, so only its problem document is checked.
const withoutOperation = [400, 403, 404, 405]
const refusesOutsider = /"status":403,"detail":"(Requests from this address are not allowed|Send requests over https)\./

/** From now on, checks every answer of the listener at `url` against its document. */
export function checkAnswers(url: string, document: object): void {
  const text = JSON.stringify(document)
  const listener = listeners.get(text) ?? readListener(document as Document)
  listeners.set(text, listener)
  known.set(Number(new URL(url).port), listener)
}

/** Stops checking all listeners. Once they are closed, the system may give their ports to listeners without a document. */
export function stopChecking(): void {
  known.clear()
}

function readListener(document: Document): Listener {
  const operations = new Map(
    Object.entries(document.paths).flatMap(([template, methods]) =>
      Object.entries(methods).map(([method, operation]) => [`${method.toUpperCase()} ${template}`, operation] as const),
    ),
  )
  const ajv = new Ajv2020({ strict: false, allErrors: true })
  addFormats.default(ajv)
  ajv.addSchema(document, 'document')
  const validators = new Map<object, ValidateFunction>()
  const validatorOf = (schema: object) => {
    const validate =
      validators.get(schema) ?? ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"document#/')))
    validators.set(schema, validate)
    return validate
  }
  return { operations, validatorOf }
}

subscribe('http.server.request.start', message => {
  const { request, response, server } = message as {
    request: IncomingMessage
    response: ServerResponse
    server: Server
  }
  const listener = known.get((server.address() as AddressInfo | null)?.port ?? -1)
  const chunks: Buffer[] = []
  let headersOfHead: string[] = []
  const writeHead = response.writeHead.bind(response) as (status: number, headers?: string[]) => ServerResponse
  response.writeHead = ((status: number, headers: string[] = []) => {
    headersOfHead = headers
    return writeHead(status, headers)
  }) as ServerResponse['writeHead']
  // Large bodies are sent in pieces. An answer without a length is a stream, which no schema describes.
  const write = response.write.bind(response) as (...args: unknown[]) => boolean
  response.write = ((...args: unknown[]) => {
    const [chunk] = args
    if (chunk instanceof Uint8Array && headersOf(response, headersOfHead).has('Content-Length'))
      chunks.push(Buffer.from(chunk))
    return write(...args)
  }) as ServerResponse['write']
  const end = response.end.bind(response) as (...args: unknown[]) => ServerResponse
  response.end = ((...args: unknown[]) => {
    const [chunk] = args
    if (typeof chunk === 'string' || chunk instanceof Uint8Array) chunks.push(Buffer.from(chunk))
    // The client has disconnected and does not get this answer.
    if (request.socket.destroyed || !request.socket.writable) return end(...args)
    const body = Buffer.concat(chunks).toString()
    const headers = headersOf(response, headersOfHead)
    if (response.statusCode >= 400 || pathOf(request.url ?? '') === '/metrics') {
      searchForSecrets(
        JSON.stringify([...headers]) + body,
        `${request.method} ${request.url}, answered ${response.statusCode},`,
      )
    }
    const answer = { status: response.statusCode, headers, body }
    const problem = listener && problemOf(listener, request, answer)
    if (problem) violations.push(`${request.method} ${request.url} answered ${response.statusCode}: ${problem}`)
    return end(...args)
  }) as ServerResponse['end']
})

// The hook is undefined when `npm run fuzz` runs these servers without mocha.
globalThis.afterEach?.('every answer conforms to its OpenAPI document', () => {
  const found = violations.splice(0)
  if (found.length > 0) throw new Error(`not as the OpenAPI document says:\n${[...new Set(found)].join('\n')}`)
})

interface Answer {
  status: number
  headers: Headers
  body: string
}

/** `headersOfHead`: the names and values that were passed to `writeHead`, which `getHeader` does not know. */
function headersOf(response: ServerResponse, headersOfHead: string[]): Headers {
  const headers = new Headers()
  for (const [name, value] of Object.entries(response.getHeaders())) headers.set(name, String(value))
  for (let i = 0; i < headersOfHead.length; i += 2) headers.set(`${headersOfHead[i]}`, `${headersOfHead[i + 1]}`)
  return headers
}

function problemOf(
  { operations, validatorOf }: Listener,
  { method = '', url = '' }: IncomingMessage,
  { status, headers, body }: Answer,
): string | null {
  const operation = find(operations, describedAs(method), pathOf(url))
  const type = String(headers.get('Content-Type') ?? '').split(';')[0] as string
  if (!headers.has('X-Request-Id')) return 'it has no X-Request-Id'
  if (operation === undefined) {
    // Koa's router answers OPTIONS for every path that it knows; no document describes that.
    if (method === 'OPTIONS' && status === 200) return headers.has('Allow') ? null : 'it has no Allow'
    if (method === 'OPTIONS' && status === 204 && headers.has('Access-Control-Allow-Origin')) return null
    if (!withoutOperation.includes(status)) return 'there is no such operation'
    return method === 'HEAD' ? null : mismatch(validatorOf(problemRef), body)
  }
  const answer = operation.responses[status]
  // A request from outside is refused before its route is known.
  if (answer === undefined) {
    return refusesOutsider.test(body) ? mismatch(validatorOf(problemRef), body) : 'this status is not described'
  }
  if (answer.content === undefined) return body === '' ? null : 'it has a body, and none is described'
  const described = answer.content[type]
  if (described === undefined) return `its type is ${type || 'none'}, not ${Object.keys(answer.content).join(' or ')}`
  if (method === 'HEAD' || !/json/.test(type)) return null
  return mismatch(validatorOf(described.schema), body)
}

function errorsText({ errors }: ValidateFunction): string {
  return (errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`).join(', ')
}

/** OpenAPI cannot name every method, for example those of WebDAV; a route that accepts these also accepts TRACE. */
function describedAs(method: string): string {
  if (method === 'HEAD') return 'GET'
  return ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'].includes(method) ? method : 'TRACE'
}

function pathOf(url: string): string {
  return url.replace(/^https?:\/\/[^/]*/, '').split('?')[0] as string
}

function find(operations: Map<string, Operation>, method: string, path: string): Operation | undefined {
  const exact = operations.get(`${method} ${path}`)
  if (exact) return exact
  for (const [route, operation] of operations) {
    const [own, template = ''] = route.split(' ')
    if (own !== method || !template.includes('{')) continue
    const pattern = template
      .replace(/[.]/g, '\\.')
      .replace('{path}', '.*')
      .replace(/\{\w+\}/g, '[^/]+')
    if (new RegExp(`^${pattern}$`).test(path)) return operation
  }
  return undefined
}

function mismatch(validate: ValidateFunction, body: string): string | null {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch {
    return `its body is not JSON: ${body.slice(0, 100)}`
  }
  return validate(value) ? null : `${errorsText(validate)} in ${body.slice(0, 300)}`
}
