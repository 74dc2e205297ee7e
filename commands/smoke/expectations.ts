// Assertions about one response. Each throws a `CheckFailure`.
import { CheckFailure, type Exchange } from './client.ts'

export function expectStatus({ status, method, path, headers }: Exchange, expected: number, rule: string): void {
  if (status === expected) return
  if (status === 429) {
    throw new CheckFailure(
      `${method} ${path} answered 429: this address has had too many failures; run this again in ${headers['retry-after'] ?? 'a few'} s`,
    )
  }
  throw new CheckFailure(`${method} ${path} answered ${status}, expected ${expected}: ${rule}`)
}

export function expectCode({ method, path, body }: Exchange, code: string): void {
  if (body['error'] !== code)
    throw new CheckFailure(`${method} ${path} has the error code ${JSON.stringify(body['error'])}, expected ${code}`)
}

export function expectChallenge({ method, path, headers }: Exchange, pattern = /^Bearer\b/): void {
  const { 'www-authenticate': challenge } = headers
  if (challenge === undefined)
    throw new CheckFailure(
      `WWW-Authenticate is missing on the 401 of ${method} ${path}, so clients do not know how to authenticate`,
    )
  if (!pattern.test(challenge))
    throw new CheckFailure(`WWW-Authenticate on the 401 of ${method} ${path} does not follow RFC 6750`)
}

/** The message names the kind of secret, never the secret itself. */
export function expectNoSecret(where: string, text: string, serviceKey: string | null): void {
  const suspects: [string, string | RegExp | null][] = [
    ['the service key', serviceKey],
    ['a token', /\blk_(key_)?[0-9A-Za-z]{63}\b/],
    ['a private key', /-----BEGIN [A-Z ]*PRIVATE KEY/],
    ['a password hash', /\$2[aby]\$\d\d\$/],
    ['a URL with a password', /:\/\/[^/\s:"@]+:[^/\s:"@]+@/],
  ]
  for (const [what, pattern] of suspects) {
    const isFound = typeof pattern === 'string' ? text.includes(pattern) : (pattern?.test(text) ?? false)
    if (isFound) throw new CheckFailure(`${where} contains ${what}: replace it now`)
  }
}
