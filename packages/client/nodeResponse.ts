// Applies the result of a check to a response of node:http, which Express uses too.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Admission } from './contract.ts'
import type { Check, Seen } from './guards.ts'

/** Null if the request is refused; the response has then been sent. */
export async function checkNode(
  check: Check,
  req: IncomingMessage,
  res: ServerResponse,
  seen: Seen,
): Promise<Admission | null> {
  const outcome = await check(req, knownId(res), seen)
  if (outcome.admission === null) {
    res.writeHead(outcome.status, { ...outcome.headers, 'Content-Length': Buffer.byteLength(outcome.body) })
    res.end(outcome.body)
    return null
  }
  setHeaders(res, outcome.headers)
  return outcome.admission
}

/** Headers that the service has set stay as they are. */
export function setHeaders(res: ServerResponse, headers: Record<string, string>): void {
  for (const [name, value] of Object.entries(headers)) if (!res.hasHeader(name)) res.setHeader(name, value)
}

/** The id that an earlier middleware has given to the request. */
export function knownId(res: ServerResponse): string | undefined {
  const id = res.getHeader('x-request-id')
  return typeof id === 'string' && id !== '' ? id : undefined
}
