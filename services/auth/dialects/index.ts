// Name of a dialect -> its routes. A new dialect is one new file and one line here; one that is not opened is never loaded.
import { hkdfSync } from 'node:crypto'
import type { Routes } from '../../../shared/http/listener.ts'
import type { DialectParts } from './dialect.ts'

const dialects = {
  'token-provider': async () => (await import('./tokenProvider.ts')).tokenProvider,
  'token-manager': async () => (await import('./tokenManager.ts')).tokenManager,
  'flask-jwt': async () => (await import('./flaskJwt.ts')).flaskJwt,
  'flask-auth': async () => (await import('./flaskAuth.ts')).flaskAuth,
} satisfies Record<string, () => Promise<(parts: DialectParts) => Routes>>

export type DialectName = keyof typeof dialects

export const dialectNames = Object.keys(dialects) as DialectName[]

/** `secrets`: what `keys` are derived from, in this order. */
export async function openDialect(
  name: DialectName,
  { secrets, ...parts }: Omit<DialectParts, 'keys'> & { secrets: readonly string[] },
): Promise<Routes> {
  const keys = secrets.map(secret => Buffer.from(hkdfSync('sha256', secret, '', `latchkey dialect ${name}`, 32)))
  return (await dialects[name]())({ ...parts, keys: keys as DialectParts['keys'] })
}

/** What the log and the list of addresses call its listener: `tokenProvider`. */
export function listenerNameOf(name: DialectName): string {
  return name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
}
