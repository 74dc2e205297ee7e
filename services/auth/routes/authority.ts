// How requests name what users and tokens may do: roles, the scope of a token, and how often.
import { z } from 'zod'
import { maxNames, roleFormat, scopeNameFormat } from '../../../packages/client/contract.ts'

const maxLength = 256 // of all names together, with a space between two

const rolesExpected = `expected up to ${maxNames} different roles, ${maxLength} characters in all, each 1 to 64 of a-z 0-9 : . _ - and beginning with a letter or digit`
const reserved = 'latchkey:'

export const rolesSchema = z
  .array(z.string(rolesExpected).regex(roleFormat, rolesExpected), rolesExpected)
  .max(maxNames, rolesExpected)
  .refine(roles => new Set(roles).size === roles.length && roles.join(' ').length <= maxLength, rolesExpected)
  .refine(roles => !roles.some(role => role.startsWith(reserved)), `expected no role that begins with ${reserved}`)
  .meta({ description: 'names of roles; they replace all earlier ones' })

const scopeExpected = `expected up to ${maxNames} different names separated by single spaces, ${maxLength} characters in all, or null for no restriction (RFC 6749, section 3.3)`

const scopeMeaning = 'names separated by spaces; null: whatever the user may do'

export const scopeSchema = z
  .string(scopeExpected)
  .max(maxLength, scopeExpected)
  .refine(scope => {
    const names = scope.split(' ')
    return (
      names.length <= maxNames &&
      new Set(names).size === names.length &&
      names.every(name => scopeNameFormat.test(name))
    )
  }, scopeExpected)
  .nullable()
  .meta({ description: scopeMeaning })

/** One name of a scope, in a query. */
export const scopeNameSchema = z
  .string()
  .max(maxLength)
  .regex(scopeNameFormat)
  .meta({ description: 'one name of a scope' })

/** The scope of a token in an answer. */
export const shownScope = z.string().nullable().meta({ description: scopeMeaning })

export const pausedSchema = z
  .boolean('expected true or false')
  .meta({ description: 'true: every later validation refuses it; false: it works again' })

const maxPerMinute = 100_000
const refillMinutes = 24 * 60 // a store remembers an empty bucket at least as long as this
const perMinuteExpected = `expected a whole number, 1 to ${maxPerMinute}`
const burstExpected = `${perMinuteExpected}, and at most ${refillMinutes} times perMinute`

/** Without `burst`, as many as in a minute may come at once. */
export const rateSchema = z
  .strictObject(
    {
      perMinute: z.int(perMinuteExpected).min(1, perMinuteExpected).max(maxPerMinute, perMinuteExpected),
      burst: z.int(burstExpected).min(1, burstExpected).max(maxPerMinute, burstExpected).optional(),
    },
    'expected {perMinute, burst?} or null for no limit',
  )
  .refine(({ perMinute, burst = 1 }) => burst <= refillMinutes * perMinute, { path: ['burst'], message: burstExpected })
  .transform(({ perMinute, burst = perMinute }) => ({ perMinute, burst }))
  .nullable()
  .meta({ description: 'how many requests pass in a minute, and how many at once; null: no limit' })

/** A rate in an answer. */
export const shownRate = z.strictObject({ perMinute: z.int(), burst: z.int() }).nullable()

const maxUses = 1_000_000_000
const usesExpected = `expected a whole number, 1 to ${maxUses}, or null for no limit`

export const usesSchema = z
  .int(usesExpected)
  .min(1, usesExpected)
  .max(maxUses, usesExpected)
  .nullable()
  .meta({ description: 'how many more requests the token allows; the last one ends it. null: any number' })
