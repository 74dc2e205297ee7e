// The headers of every response.
import type { PipelineContext } from './types.ts'

/** For JSON, which nearly all responses are; pages replace some of these headers. */
export const defaultHeaders: ReadonlyMap<string, string> = new Map([
  ['Content-Type', 'application/json; charset=utf-8'],
  ['Cache-Control', 'no-store'],
  ['Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'"],
  ['Referrer-Policy', 'no-referrer'],
  ['X-Content-Type-Options', 'nosniff'],
])

const defaultList = [...defaultHeaders].flat()
const listWithoutContent = [...defaultHeaders].filter(([name]) => name !== 'Content-Type').flat()
const hsts = `max-age=${365 * 86400}`

/**
 * Writes the headers that the handlers have set, and the defaults for the others. `contentLength` is in bytes; null for a
 * stream.
 */
export function writeHeaders({ res, state }: PipelineContext, contentLength: number | 'no content' | null): void {
  const headers = contentLength === 'no content' ? listWithoutContent.slice() : defaultList.slice()
  headers.push('X-Request-Id', state.requestId)
  if (typeof contentLength === 'number') headers.push('Content-Length', String(contentLength))
  if (state.serverTiming !== undefined) headers.push('Server-Timing', state.serverTiming)
  if (state.isHttps) headers.push('Strict-Transport-Security', hsts)
  // Setting each header costs 4 of 30 µs per request, and few handlers set any.
  if (res.getHeaderNames().length === 0) {
    res.writeHead(res.statusCode, headers)
    return
  }
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    if (!res.hasHeader(name)) res.setHeader(name, headers[i + 1] as string)
  }
}
