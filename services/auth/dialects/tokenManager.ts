// The dialect of token-manager-api: any client can get a token `<digits>:<characters>`, and check whether one is valid.
// Hides how that format maps to a token id and hash.
import { hash, randomInt } from 'node:crypto'
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { isKnownError } from '../../../shared/http/errors.ts'
import type { Context, Handler, Routes } from '../../../shared/http/types.ts'
import { drawSecret, parseSecret, type TokenFormat } from '../tokens/format.ts'
import type { DialectParts } from './dialect.ts'
import { answer, countInvalid, guestIssuer } from './requests.ts'

const purpose = 'token-manager'
const minTokenLength = 17 // minimum length of a token in the older service
const readToken = bodyReader(z.object({ token: z.string().min(minTokenLength) }))

export function tokenManager({
  openTokens,
  throttles,
  invalidTokens,
  sweeper,
  ttlMs,
}: Pick<DialectParts, 'openTokens' | 'throttles' | 'invalidTokens' | 'sweeper' | 'ttlMs'>): Routes {
  const tokens = openTokens(numberedFormat)
  const issueToGuest = guestIssuer({ tokens, throttles, purpose, ttlMs })

  async function respondWithStatus(ctx: Context, secret: string): Promise<void> {
    const token = await tokens.validate(secret, { purpose, touch: true })
    if (!token) await countInvalid(ctx, invalidTokens)
    ctx.body = { status_code: 200, status: Boolean(token) }
  }

  const create: Handler = async ctx => {
    ctx.body = { status_code: 200, token: await issueToGuest(ctx) }
  }

  const validPath: Handler = async ctx => {
    const { token = '' } = ctx.params
    await respondWithStatus(ctx, token)
  }

  const validBody: Handler = async ctx => {
    const token = await readToken(ctx).then(
      body => body.token,
      error => {
        if (isKnownError(error) && error.code === 'invalid_request') return null
        throw error
      },
    )
    if (token !== null) return respondWithStatus(ctx, token)
    const msg = `A JSON object with a token of at least ${minTokenLength} characters is expected`
    answer(ctx, 422, { detail: [{ type: 'value_error', loc: ['body', 'token'], msg }] })
  }

  /** Any client may call this. Concurrent calls share one sweep, which yields to other work between its steps. */
  const clear: Handler = async ctx => {
    await sweeper.sweep()
    ctx.body = { status_code: 200, status: true }
  }

  return {
    'POST /app/token': [create],
    'GET /app/valid/:token': [validPath],
    'POST /app/valid/:token': [validBody],
    'DELETE /app/clear/all/tokens': [clear],
  }
}

/** Our opaque secret with a different prefix. The hash covers the prefix, so another number in front is refused. */
const numberedFormat: TokenFormat = {
  async draw({ id }) {
    const secret = `${randomInt(100_000, 1_000_000)}:${drawSecret(id).slice('lk_'.length)}`
    return { secret, ref: { id, hash: hash('sha256', secret, 'base64url') } }
  },
  parse(secret) {
    const [, rest] = /^\d{6}:(\w+)$/.exec(secret) ?? []
    const ref = rest === undefined ? null : parseSecret(`lk_${rest}`)
    return ref && { id: ref.id, hash: hash('sha256', secret, 'base64url') }
  },
  lineageOf: secret => hash('sha256', secret, 'base64url'), // these tokens are never renewed
}
