// Maps the name of a dialect to its routes. A new dialect is one new file and one line here, its lifetime in settings.ts and its
// calls in documents.ts; `import()` keeps the code of an unused dialect from being loaded.
import { hkdfSync } from 'node:crypto'
import type { Routes } from '../../../shared/http/types.ts'
import type { DialectParts } from './dialect.ts'

const dialects = {
  'token-provider': async () => (await import('./tokenProvider.ts')).tokenProvider,
  'token-manager': async () => (await import('./tokenManager.ts')).tokenManager,
  'flask-jwt': async () => (await import('./flaskJwt.ts')).flaskJwt,
  'flask-auth': async () => (await import('./flaskAuth.ts')).flaskAuth,
} satisfies Record<string, () => Promise<(parts: DialectParts) => Routes>>

export type DialectName = keyof typeof dialects

export const dialectNames = Object.keys(dialects) as DialectName[]

/** Derives `keys` from `secrets`, in the same order. */
export async function openDialect(
  name: DialectName,
  { secrets, ...parts }: Omit<DialectParts, 'keys'> & { secrets: readonly string[] },
): Promise<Routes> {
  const keys = secrets.map(secret => Buffer.from(hkdfSync('sha256', secret, '', `latchkey dialect ${name}`, 32)))
  return (await dialects[name]())({ ...parts, keys: keys as DialectParts['keys'] })
}

/** The listener's name in the log and in the list of addresses, for example `tokenProvider`. */
export function listenerNameOf(name: DialectName): string {
  return name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
}
