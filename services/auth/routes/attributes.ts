// How requests and answers show the attributes of users.
import { z } from 'zod'
import { AppError } from '../../../shared/http/errors.ts'
import { type Attributes, bytesOf, maxAttributesBytes, maxProfileBytes } from '../users/attributes.ts'

const maxDepth = 8

function jsonObject(maxBytes: number) {
  const expected = `expected a JSON object of at most ${maxBytes} bytes`
  return z.custom<Attributes>(isObject, expected).superRefine((value, { addIssue }) => {
    const problem = problemWith(value, maxDepth)
    if (problem !== null) addIssue(problem)
    else if (bytesOf(JSON.stringify(value)) > maxBytes) addIssue(expected)
  })
}

const profileSchema = jsonObject(maxProfileBytes).meta({
  type: 'object',
  description: `what users say of themselves; at most ${maxProfileBytes} bytes`,
})

/** What an operator may send. */
export const attributesSchema = jsonObject(maxAttributesBytes)
  .superRefine(({ profile }, { addIssue }) => {
    if (profile === undefined) return
    for (const { message } of profileSchema.safeParse(profile).error?.issues ?? []) {
      addIssue({ code: 'custom', path: ['profile'], message })
    }
  })
  .meta({
    type: 'object',
    description: `replaces all but the member \`profile\`, which belongs to the user, and that too if it is sent; at most ${maxAttributesBytes} bytes`,
  })

/** What users may send. */
export const ownAttributesSchema = z.strictObject(
  { profile: profileSchema },
  {
    error: ({ code }) =>
      code === 'unrecognized_keys'
        ? 'expected no member but profile; an operator sets the others'
        : 'expected an object with the member profile',
  },
)

/** The attributes in an answer. */
export const shownAttributes = z
  .record(z.string(), z.unknown())
  .meta({ description: 'what the operator knows about the user, and in `profile` what the user has said' })

export function attributesTooLarge(): AppError {
  return new AppError(
    'invalid_request',
    `attributes: expected at most ${maxAttributesBytes} bytes as JSON, together with those that stay`,
  )
}

function isObject(value: unknown): value is Attributes {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Null if the value can be stored and read back as it is. `depth`: how many objects or arrays may contain each other. */
function problemWith(value: unknown, depth: number): string | null {
  if (typeof value === 'number' && !Number.isFinite(value)) return 'expected no number beyond 1.8e308'
  if (typeof value !== 'object' || value === null) return null
  if (depth === 0) return `expected at most ${maxDepth} objects or arrays within each other`
  for (const part of Object.values(value)) {
    const problem = problemWith(part, depth - 1)
    if (problem !== null) return problem
  }
  return null
}
