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

const hsts = `max-age=${365 * 86400}`

export function setDefaultHeaders({ res, state }: PipelineContext): void {
  res.setHeader('X-Request-Id', state.requestId)
  res.setHeaders(defaultHeaders as Map<string, string>)
  if (state.isHttps) res.setHeader('Strict-Transport-Security', hsts)
}
