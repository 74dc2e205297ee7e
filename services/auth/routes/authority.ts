// How requests name what users and tokens may do: roles, and the scope of a token.
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
