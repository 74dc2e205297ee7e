// Reads the headers of a request of node:http or of fetch.
import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { isRequestId } from './requestIdentity.ts'

/** A request of node:http (Koa, Express and Fastify have it as `req` or `raw`) or of fetch. */
export type AnyRequest = Pick<IncomingMessage, 'rawHeaders'> | Pick<Request, 'headers'>

/** Header names and values in turn, as in `rawHeaders`. */
export function pairsOf(request: AnyRequest): readonly string[] {
  if ('rawHeaders' in request) return request.rawHeaders
  // `Headers` joins headers of the same name. Splitting them again finds two tokens; a single token contains no comma.
  return [...request.headers].flatMap(([name, value]) =>
    name === 'authorization' || name === 'token'
      ? value.split(name === 'token' ? /, / : /, (?=[\w-]+ )/).flatMap(one => [name, one])
      : [name, value],
  )
}

/** The id that the client or a proxy has given to the request, or a new one. */
export function idOf(pairs: readonly string[]): string {
  const given = headerOf(pairs, 'x-request-id')
  return isRequestId(given) ? given : randomUUID()
}

export function headerOf(pairs: readonly string[], name: string): string | undefined {
  for (let i = 0; i < pairs.length; i += 2) {
    if (pairs[i]?.length === name.length && pairs[i]?.toLowerCase() === name) return pairs[i + 1]
  }
  return undefined
}
