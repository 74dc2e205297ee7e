// What the routes that take a password have in common: the schema of credentials, the client that waits, and refusals.
import { z } from 'zod'
import { AppError } from '../../../shared/http/errors.ts'
import type { Context } from '../../../shared/http/types.ts'
import type { Client } from '../users/passwords.ts'
import type { Registration } from '../users/registration.ts'
import { isAddress } from '../users/usernames.ts'

/** 1 to 256 characters of valid Unicode: cheap to refuse before anything is hashed. */
export const text = (name: string) =>
  z
    .string({ error: `expected a ${name}, as a string` })
    .min(1, `expected a ${name} of 1 to 256 characters`)
    .max(512, `expected a ${name} of 1 to 256 characters`)
    .refine(value => [...value].length <= 256, `expected a ${name} of 1 to 256 characters`)
    .refine(value => value.isWellFormed(), `expected a ${name} in valid Unicode; there is half a surrogate pair`)

const emailExpected = 'expected an e-mail address of at most 254 characters, or null'

export const emailSchema = z.string(emailExpected).refine(isAddress, emailExpected).nullable()

export const credentialsSchema = z.strictObject({ username: text('username'), password: text('password') })

/** The signal of the result aborts if the client disconnects before it is answered. */
export function clientOf({ res, state }: Context): Client {
  const gone = new AbortController()
  res.once('close', () => res.writableFinished || gone.abort())
  return { address: state.address, signal: gone.signal }
}

/** Throws 403 if only the operator adds users. */
export function requireOpenRegistration({ isOpen }: Registration): void {
  if (!isOpen) throw new AppError('forbidden', 'Registration is closed here; ask the operator for an account.')
}

export function invalidCredentials(detail: string): AppError {
  return new AppError('invalid_credentials', detail, { headers: { 'WWW-Authenticate': 'Bearer realm="latchkey"' } })
}
