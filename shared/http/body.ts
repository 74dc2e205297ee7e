// Request bodies: a JSON object (or a form, where allowed) of capped size, checked against a schema. Refuses what lenient
// parsers turn into something else: other types and charsets, compression, invalid UTF-8, arrays, `__proto__`.
import bodyParser from 'koa-bodyparser'
import type { z } from 'zod'
import { AppError } from './errors.ts'
import type { Context } from './types.ts'

export interface BodyOptions {
  /** Bytes. */
  limit?: number
  /** Also `application/x-www-form-urlencoded`. */
  form?: boolean
}

const json = /^application\/json\s*(;\s*charset=(utf-8|"utf-8")\s*)?;?$/i
const form = /^application\/x-www-form-urlencoded\s*(;\s*charset=(utf-8|"utf-8")\s*)?;?$/i

export interface BodyReader<T> {
  (ctx: Context): Promise<T>
  schema: z.ZodType<T>
  /** Whether the body may also be a form. */
  takesForms: boolean
}

/**
 * Reads bodies that are a `T`. Rejects with `unsupported_media_type`, `too_large`, or an `invalid_request` that names the
 * member that is wrong and what is expected.
 */
export function bodyReader<T>(
  schema: z.ZodType<T>,
  { limit = 16 * 1024, form: takesForms = false }: BodyOptions = {},
): BodyReader<T> {
  // A form is read as text: the parser's own form reader nests `a[b]`, drops what it dislikes and stops at 1000 pairs.
  const parse = bodyParser({
    enableTypes: ['json', 'text'],
    extendTypes: { text: ['application/x-www-form-urlencoded'] },
    jsonLimit: `${limit}b`,
    textLimit: `${limit}b`,
    onerror: translate,
  })

  function translate(error: Error & { status?: number; type?: string }, { req }: Pick<Context, 'req'>): never {
    // The parser has left the rest of the body in the socket, where it would block a client that is still sending.
    req.resume()
    // No cause: the parser's error carries the body, and its message a piece of it.
    if (error.status === 413) throw new AppError('too_large', `The body may have at most ${limit} bytes.`)
    if (error.type === 'request.aborted') throw new AppError('invalid_request', 'The body ended too early.')
    if (error.status === 400) throw new AppError('invalid_request', 'The body cannot be read as a JSON object.')
    throw error
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
    await parse(ctx, async () => {})
    const { body, rawBody = '' } = ctx.request as { body?: unknown; rawBody?: string }
    if (rawBody === '') throw new AppError('invalid_request', 'The body is empty; a JSON object is expected.')
    refuseInvalidUtf8(rawBody)
    const result = schema.safeParse(typeof body === 'string' ? membersOf(body) : body)
    if (!result.success) throw new AppError('invalid_request', describe(result.error))
    return result.data
  }

  return Object.assign(readBody, { schema, takesForms })
}

/** The members of a form; one that is there twice is null, which no schema of ours takes. */
function membersOf(text: string): Record<string, string | null> {
  const members = new Map<string, string | null>()
  for (const [name, value] of new URLSearchParams(text)) {
    refuseInvalidUtf8(name + value)
    // Not a list of its values: to grow one 8000 times takes a quarter of a second.
    members.set(name, members.has(name) ? null : value)
  }
  return Object.fromEntries(members)
}

/** U+FFFD is what decoders make of bytes that are not UTF-8; then different bytes would be the same password. */
function refuseInvalidUtf8(text: string): void {
  if (text.includes('\uFFFD')) throw new AppError('invalid_request', 'The body is not valid UTF-8.')
}

function describe(error: z.ZodError): string {
  const problems = error.issues.map(issue => {
    // JSON sent as a form is one long name, the password included: only what looks like a name is repeated.
    const repeatable = issue.code !== 'unrecognized_keys' || issue.keys.every(name => /^\w{1,40}$/.test(name))
    const message = repeatable ? issue.message : 'there are unknown members'
    return issue.path.length > 0 ? `${issue.path.join('.')}: ${message}` : message
  })
  return problems.slice(0, 5).join('; ').slice(0, 500)
}
