// The HTTP client of the tests. Every call has its own connection, so that a server under test can close at once, and
// no redirect is followed. For malformed requests use raw.ts.

export interface Answer<T = Record<string, unknown>> {
  status: number
  headers: Headers
  text: string
  /** The parsed JSON; {} if the answer is not JSON. */
  body: T
}

/** `body`: a form or bytes are sent as they are, a string is sent as JSON text, and anything else is serialized to JSON. */
export async function ask<T = Record<string, unknown>>(
  method: string,
  url: string,
  bearer: string | null = null,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer<T>> {
  const sent = new Headers({ connection: 'close', ...headers })
  if (bearer !== null) sent.set('authorization', `Bearer ${bearer}`)
  const isRaw = body instanceof URLSearchParams || body instanceof Uint8Array
  if (body !== undefined && !isRaw && !sent.has('content-type')) sent.set('content-type', 'application/json')
  const content = isRaw || typeof body === 'string' ? body : JSON.stringify(body)
  const answer = await fetch(url, {
    method,
    headers: sent,
    redirect: 'manual',
    ...(content !== undefined && { body: content }),
  })
  const text = await answer.text()
  const isJson = text !== '' && /json/.test(answer.headers.get('content-type') ?? '')
  return { status: answer.status, headers: answer.headers, text, body: (isJson ? JSON.parse(text) : {}) as T }
}

export function get<T = Record<string, unknown>>(url: string, headers: Record<string, string> = {}) {
  return ask<T>('GET', url, null, undefined, headers)
}

export function post<T = Record<string, unknown>>(url: string, body?: unknown, headers: Record<string, string> = {}) {
  return ask<T>('POST', url, null, body, headers)
}
