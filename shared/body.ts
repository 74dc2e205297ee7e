// Request bodies: a JSON object (or a form, where allowed) of capped size, checked against a schema. Refuses what lenient
// parsers turn into something else: other types and charsets, compression, invalid UTF-8, arrays, `__proto__`.
import bodyParser from 'koa-bodyparser'
import type { z } from 'zod'
import { AppError } from './errors.ts'
import type { Context } from './http.ts'

export interface BodyOptions {
  /** Bytes. */
  limit?: number
  /** Also `application/x-www-form-urlencoded`. */
  form?: boolean
}

const json = /^application\/json\s*(;\s*charset="?utf-8"?\s*)?;?$/i
const form = /^application\/x-www-form-urlencoded\s*(;\s*charset="?utf-8"?\s*)?;?$/i

/**
 * Reads bodies that are a `T`. Rejects with `unsupported_media_type`, `too_large`, or an `invalid_request` that names the
 * member that is wrong and what is expected.
 */
export function bodyReader<T>(schema: z.ZodType<T>, { limit = 16 * 1024, form: takesForms = false }: BodyOptions = {}) {
  const parse = bodyParser({
    enableTypes: takesForms ? ['json', 'form'] : ['json'],
    jsonLimit: `${limit}b`,
    formLimit: `${limit}b`,
    onerror: translate,
  })

  function translate(error: Error & { status?: number; type?: string }): never {
    // No cause: the parser's error carries the body, and its message a piece of it.
    if (error.status === 413) throw new AppError('too_large', `The body may have at most ${limit} bytes.`)
    if (error.type === 'request.aborted') throw new AppError('invalid_request', 'The body ended too early.')
    if (error.status === 400) throw new AppError('invalid_request', 'The body is not valid JSON.')
    throw error
  }

  return async function readBody(ctx: Context): Promise<T> {
    const type = ctx.get('Content-Type')
    if (!json.test(type) && !(takesForms && form.test(type))) {
      const expected = takesForms ? 'application/json or application/x-www-form-urlencoded' : 'application/json'
      throw new AppError('unsupported_media_type', `Send the body as Content-Type: ${expected}, in UTF-8.`)
    }
    const encoding = ctx.get('Content-Encoding')
    if (encoding !== '' && encoding !== 'identity') {
      throw new AppError('unsupported_media_type', 'Send the body uncompressed, without Content-Encoding.')
    }
    await parse(ctx, async () => {})
    const { body, rawBody = '' } = ctx.request as { body?: unknown; rawBody?: string }
    // U+FFFD is what the decoder made of bytes that are not UTF-8; then different bytes would be the same password.
    if (rawBody.includes('\uFFFD')) throw new AppError('invalid_request', 'The body is not valid UTF-8.')
    if (rawBody === '') throw new AppError('invalid_request', 'The body is empty; a JSON object is expected.')
    const result = schema.safeParse(body)
    if (!result.success) throw new AppError('invalid_request', describe(result.error))
    return result.data
  }
}

function describe(error: z.ZodError): string {
  const problems = error.issues.map(({ path, message }) =>
    path.length > 0 ? `${path.join('.')}: ${message}` : message,
  )
  return problems.slice(0, 5).join('; ').slice(0, 500)
}
