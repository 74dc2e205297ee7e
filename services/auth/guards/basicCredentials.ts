// Reads the credentials of a client in HTTP Basic (RFC 7617; RFC 6749, section 2.3.1).
import type { IncomingMessage } from 'node:http'
import { AppError } from '../../../shared/http/errors.ts'

export interface ClientCredentials {
  id: string
  secret: string
}

/**
 * The credentials as they were sent, and form-decoded: RFC 6749 section 2.3.1 asks clients to encode them, and many do not. Empty
 * if they are malformed, null if the scheme is not Basic. Throws `invalid_request` if there are others besides.
 */
export function readBasicCredentials(req: IncomingMessage): ClientCredentials[] | null {
  const [credentials = '', ...others] = req.headersDistinct['authorization'] ?? []
  const [, encoded] = /^basic(?: +(.*))?$/i.exec(credentials) ?? [null, null]
  if (encoded === null) return null
  if (others.length > 0 || req.headers['token'] !== undefined) {
    throw new AppError('invalid_request', 'Send the key once: in one Authorization header.')
  }
  if (encoded === undefined || !/^[A-Za-z0-9+/]+={0,2}$/.test(encoded)) return []
  const [, id, secret] = /^([^:]+):(.+)$/s.exec(Buffer.from(encoded, 'base64').toString('utf8')) ?? []
  if (id === undefined || secret === undefined) return []
  try {
    return [
      { id, secret },
      { id: decodeForm(id), secret: decodeForm(secret) },
    ]
  } catch {
    return [] // a percent sign that encodes nothing; no key has one
  }
}

/** application/x-www-form-urlencoded. Throws a `URIError`. */
function decodeForm(text: string): string {
  return decodeURIComponent(text.replaceAll('+', ' '))
}
