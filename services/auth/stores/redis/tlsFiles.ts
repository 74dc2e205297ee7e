// The TLS options of a connection to Redis, with the files that its URL names.
import { readFile } from 'node:fs/promises'
import type { Place } from './place.ts'

export interface TlsOptions {
  tls?: true
  rejectUnauthorized?: boolean
  ca?: Buffer
  cert?: Buffer
  key?: Buffer
}

/** Reads the files once: a renewed certificate is used after a restart. */
export async function readTlsFiles({ tls, tlsFiles }: Place): Promise<TlsOptions> {
  if (tls === 'off') return {}
  const options: TlsOptions = { tls: true, rejectUnauthorized: tls === 'verify' }
  for (const part of ['ca', 'cert', 'key'] as const) {
    const path = tlsFiles[part]
    if (path !== undefined) options[part] = await readPem(`tls-${part}-file`, path)
  }
  return options
}

async function readPem(name: string, path: string): Promise<Buffer> {
  const content = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new Error(`${name}: ${path} cannot be read (${error.code})`, { cause: error })
  })
  if (!content.includes('-----BEGIN ')) throw new Error(`${name}: expected a PEM file; ${path} is not one`)
  return content
}
