// The query of the operator's lists.
import { z } from 'zod'
import { AppError } from '../../../shared/http/errors.ts'
import type { Context } from '../../../shared/http/types.ts'

const maxPerPage = 200

export const pageSize = z
  .string()
  .regex(/^\d{1,3}$/)
  .transform(Number)
  .pipe(z.int().min(1).max(maxPerPage))
  .default(50)

/** The `next` of a page of tokens. */
export const cursor = z
  .string()
  .regex(/^[\w:-]{1,64}$/)
  .optional()

export const pageSizeExpected = `limit (1 to ${maxPerPage})`

/** Throws `invalid_request` with what is expected. */
export function readQuery<T>(ctx: Context, schema: z.ZodType<T>, expected: string): T {
  const result = schema.safeParse({ ...ctx.query })
  if (result.success) return result.data
  throw new AppError('invalid_request', `The query takes ${expected}.`)
}
