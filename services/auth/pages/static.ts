// Serves files and texts that do not change while the process runs. Each is read and compressed once and shared by all
// requests. Hides content negotiation, ETags, and the pacing of large bodies.
import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { extname } from 'node:path'
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { brotliCompress, constants, gzip } from 'node:zlib'
import type { Context, Handler } from '../../../shared/http/types.ts'
import { toBrowserModule } from './browserModule.ts'

const types = {
  '.css': 'text/css',
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.svg': 'image/svg+xml',
}
type Extension = keyof typeof types

type Encoding = 'br' | 'gzip' | 'identity'

interface Representation {
  /** The actual encoding of the body: `identity` if compression would make it longer. */
  encoding: Encoding
  body: Buffer
  etag: string
}

// Brotli's highest quality saves another 11 % but takes six seconds of CPU for the largest file; quality 5 takes 0.2
// seconds.
const brotliOptions = { params: { [constants.BROTLI_PARAM_QUALITY]: 5 } }
const compressors = {
  br: (body: Buffer) => promisify(brotliCompress)(body, brotliOptions),
  gzip: (body: Buffer) => promisify(gzip)(body),
}

const chunkBytes = 64 * 1024
const chunkEveryMs = 1

/** Serves the file at `path`. Every response includes `headers`, even a 304. */
export function staticFile(path: string, headers: Record<string, string> = {}): Handler {
  return serve(() => readFile(path), extname(path) as Extension, headers)
}

/** Serves the TypeScript or JavaScript module at `path` to browsers. */
export function staticModule(path: string, packageUrls: Record<string, string> = {}): Handler {
  return serve(async () => Buffer.from(toBrowserModule(await readFile(path, 'utf8'), packageUrls)), '.js', {})
}

/** Serves `text` like a file with this extension. */
export function staticText(text: string, extension: Extension, headers: Record<string, string> = {}): Handler {
  return serve(async () => Buffer.from(text), extension, headers)
}

function serve(read: () => Promise<Buffer>, extension: Extension, headers: Record<string, string>): Handler {
  const identity = once(async (): Promise<Representation> => {
    const body = await read()
    return { encoding: 'identity', body, etag: `"${hash('sha256', body, 'base64url').slice(0, 22)}"` }
  })
  const compressed = (encoding: 'br' | 'gzip') =>
    once(async (): Promise<Representation> => {
      const plain = await identity()
      const body = await compressors[encoding](plain.body)
      if (body.length >= plain.body.length) return plain
      return { encoding, body, etag: plain.etag.replace(/"$/, `-${encoding}"`) }
    })
  const representations = { identity, br: compressed('br'), gzip: compressed('gzip') }

  return async function sendStatic(ctx) {
    const { encoding, body, etag } = await representations[acceptedEncoding(ctx)]()
    ctx.set(headers)
    // Clients may cache but must revalidate, because a release changes the contents of a file but not its name.
    ctx.set('Cache-Control', 'no-cache')
    ctx.set('ETag', etag)
    ctx.vary('Accept-Encoding')
    ctx.status = 200
    if (ctx.fresh) {
      ctx.status = 304
      return
    }
    if (encoding !== 'identity') ctx.set('Content-Encoding', encoding)
    ctx.body = ctx.method === 'HEAD' || body.length <= chunkBytes ? body : pacedStream(body)
    ctx.type = `${types[extension]}; charset=utf-8`
    ctx.length = body.length
  }
}

/**
 * Of the encodings that the client accepts, the one with the smallest body. Clients that send no Accept-Encoding get
 * `identity`: they accept anything by definition, but few of them decompress.
 */
function acceptedEncoding(ctx: Context): Encoding {
  if (ctx.get('Accept-Encoding') === '') return 'identity'
  if (ctx.acceptsEncodings('br')) return 'br'
  return ctx.acceptsEncodings('gzip') ? 'gzip' : 'identity'
}

/** Calls `make` on first use and shares its result; calls it again only after a failure. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null
  return () => {
    made ??= make().catch(error => {
      made = null
      throw error
    })
    return made
  }
}

/**
 * The large bodies of this process take turns: together they send one chunk per millisecond, about 64 MB/s. A chunk
 * takes about 20 µs to write, so any number of downloads leaves the event loop free to validate tokens. A client that
 * does not read takes no turn and no memory, because chunks are views of the shared body.
 */
const waiting = new Set<() => void>()
let ticking: NodeJS.Timeout | null = null

function tick(): void {
  const [next] = waiting
  if (next === undefined) {
    if (ticking !== null) clearInterval(ticking)
    ticking = null
    return
  }
  waiting.delete(next)
  next()
}

function pacedStream(body: Buffer): Readable {
  let sent = 0
  const sendChunk = () => {
    stream.push(body.subarray(sent, sent + chunkBytes))
    sent += chunkBytes
    if (sent >= body.length) stream.push(null)
  }
  const stream = new Readable({
    highWaterMark: 1, // one chunk, whatever its size
    read() {
      waiting.add(sendChunk)
      ticking ??= setInterval(tick, chunkEveryMs)
    },
    destroy(error, done) {
      waiting.delete(sendChunk)
      done(error)
    },
  })
  return stream
}
