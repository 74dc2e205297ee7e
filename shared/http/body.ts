// Request bodies: a JSON object, or a form if the route allows it, of limited size and checked against a schema. Refuses what
// lenient parsers accept: other types and charsets, compression, invalid UTF-8, arrays, `__proto__`.
import type { IncomingMessage } from 'node:http'
import bodyParser from 'koa-bodyparser'
import type { z } from 'zod'
import { AppError } from './errors.ts'
import type { Context } from './types.ts'

export interface BodyOptions {
  /** Bytes. */
  limit?: number
  /** Also accept `application/x-www-form-urlencoded`. */
  form?: boolean
  /** Read JSON without koa-bodyparser, which takes a quarter of the time of a call for one verdict. Excludes `form`. */
  isHot?: boolean
}

const json = /^application\/json\s*(;\s*charset=(utf-8|"utf-8")\s*)?;?$/i
const form = /^application\/x-www-form-urlencoded\s*(;\s*charset=(utf-8|"utf-8")\s*)?;?$/i

const utf8 = new TextDecoder() // drops one byte order mark

export interface BodyReader<T> {
  (ctx: Context): Promise<T>
  schema: z.ZodType<T>
  /** Whether the body may also be a form. */
  takesForms: boolean
}

/**
 * Reads bodies that match the schema. Rejects with `unsupported_media_type`, `too_large`, or an `invalid_request` that names
 * the wrong member and what is expected.
 */
export function bodyReader<T>(
  schema: z.ZodType<T>,
  { limit = 16 * 1024, form: takesForms = false, isHot = false }: BodyOptions = {},
): BodyReader<T> {
  // A form is read as text, because the parser's own form reader nests `a[b]`, drops some pairs and stops after 1000 pairs.
  const parse = bodyParser({
    enableTypes: ['json', 'text'],
    extendTypes: { text: ['application/x-www-form-urlencoded'] },
    jsonLimit: `${limit}b`,
    textLimit: `${limit}b`,
    onerror: translate,
  })

  function translate(error: Error & { status?: number; type?: string }, { req }: Pick<Context, 'req'>): never {
    // The parser leaves the rest of the body in the socket, which would block a client that is still sending.
    req.resume()
    // The new errors have no cause, because the parser's error contains the body, and its message a part of the body.
    if (error.status === 413) throw tooLarge(limit)
    // The latter if the client has disconnected before the body was read, for example during the validation of its token.
    if (error.type === 'request.aborted' || error.type === 'stream.not.readable') throw endedTooEarly()
    if (error.status === 400) throw notJson()
    throw error
  }

  async function readWithParser(ctx: Context): Promise<{ body: unknown; text: string }> {
    await parse(ctx, async () => {})
    const { body, rawBody = '' } = ctx.request as { body?: unknown; rawBody?: string }
    return { body, text: rawBody }
  }

  async function readBody(ctx: Context): Promise<T> {
    const type = ctx.get('Content-Type')
    if (!json.test(type) && !(takesForms && form.test(type))) {
      const expected = takesForms ? 'application/json or application/x-www-form-urlencoded' : 'application/json'
      throw new AppError('unsupported_media_type', `Send the body as Content-Type: ${expected}, in UTF-8.`)
    }
    const encoding = ctx.get('Content-Encoding')
    if (encoding !== '' && encoding !== 'identity') {
      throw new AppError('unsupported_media_type', 'Send the body uncompressed, without Content-Encoding.')
    }
    if ((ctx.req.headers['transfer-encoding'] ?? 'chunked') !== 'chunked') {
      throw new AppError('unsupported_media_type', 'Send the body with Content-Length, or Transfer-Encoding: chunked.')
    }
    const { body, text } = isHot ? await readJson(ctx.req, limit) : await readWithParser(ctx)
    if (text === '') throw new AppError('invalid_request', 'The body is empty. Send a JSON object.')
    refuseInvalidUtf8(text)
    const result = schema.safeParse(typeof body === 'string' ? membersOf(body) : body)
    if (!result.success) throw new AppError('invalid_request', describe(result.error))
    return result.data
  }

  return Object.assign(readBody, { schema, takesForms })
}

/** Reads a body of JSON. Its schema must refuse unknown members, and so `__proto__`. */
async function readJson(req: IncomingMessage, limit: number): Promise<{ body: unknown; text: string }> {
  const text = utf8.decode(await readBytes(req, limit))
  if (text === '') return { body: null, text }
  try {
    return { body: JSON.parse(text), text }
  } catch {
    throw notJson()
  }
}

/**
 * Reads a whole body of at most `limit` bytes. Rejects with `too_large` as soon as it is known to be longer, or with
 * `invalid_request` if it ends too early.
 */
export function readBytes(req: IncomingMessage, limit: number): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
  const chunks: Buffer[] = []
  let size = 0
  if (Number(req.headers['content-length'] ?? 0) > limit) reject(tooLarge(limit))
  req.on('data', (chunk: Buffer) => {
    size += chunk.length
    // Above the limit, the rest is read and dropped: in the socket it would block a client that is still sending.
    if (size <= limit) chunks.push(chunk)
    else reject(tooLarge(limit))
  })
  req.on('end', () => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)))
  req.on('close', () => req.complete || reject(endedTooEarly()))
  return promise
}

const tooLarge = (limit: number) => new AppError('too_large', `The body must have at most ${limit} bytes.`)
const endedTooEarly = () => new AppError('invalid_request', 'The body ended too early.')
const notJson = () => new AppError('invalid_request', 'The body is not a valid JSON object.')

/** The members of a form. A repeated member is null, which every schema treats as invalid or as missing. */
function membersOf(text: string): Record<string, string | null> {
  const members = new Map<string, string | null>()
  for (const [name, value] of new URLSearchParams(text)) {
    refuseInvalidUtf8(name + value)
    // Repeated values are not collected, because growing a list 8000 times takes a quarter of a second.
    members.set(name, members.has(name) ? null : value)
  }
  return Object.fromEntries(members)
}

/** Decoders replace bytes that are not UTF-8 by U+FFFD, which would make different passwords equal. */
function refuseInvalidUtf8(text: string): void {
  if (text.includes('\uFFFD')) throw new AppError('invalid_request', 'The body is not valid UTF-8.')
}

function describe(error: z.ZodError): string {
  const problems = error.issues.map(issue => {
    // JSON that is sent as a form becomes one long name with the password in it, so only short words are repeated.
    const repeatable = issue.code !== 'unrecognized_keys' || issue.keys.every(name => /^\w{1,40}$/.test(name))
    const message = repeatable ? issue.message : 'there are unknown members'
    return issue.path.length > 0 ? `${issue.path.join('.')}: ${message}` : message
  })
  return problems.slice(0, 5).join('; ').slice(0, 500)
}
