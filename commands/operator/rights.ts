// Roles, attributes, addresses and rates as an operator types them.
import { attributesSchema } from '../../services/auth/routes/attributes.ts'
import { rateSchema, rolesSchema } from '../../services/auth/routes/authority.ts'
import { emailSchema } from '../../services/auth/routes/credentials.ts'
import type { Attributes } from '../../services/auth/users/attributes.ts'
import type { Invocation } from '../commandLine.ts'
import type { ShownUser } from './operatorClient.ts'

/** The names in a list such as `admin, editor`. */
export function namesIn(list: string): string[] {
  return list.split(',').flatMap(name => name.trim() || [])
}

/** Throws if these cannot be roles. */
export function rolesOf(list: string): string[] {
  const { data, error } = rolesSchema.safeParse(namesIn(list))
  if (error) throw new Error(`roles: ${error.issues[0]?.message}`)
  return data
}

/** Throws if these cannot be attributes. */
export function attributesFrom(json: string): Attributes {
  const { data, error } = attributesSchema.safeParse(parsedJson(json))
  if (error) throw new Error(`attributes: ${error.issues[0]?.message}`)
  return data
}

/** Null if it is not JSON. */
function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** Throws if this cannot be an address. */
export function emailFrom(text: string): string | null {
  const { data = null, error } = emailSchema.safeParse(text)
  if (error) throw new Error(`email: ${error.issues[0]?.message}`)
  return data
}

/** The rate of --per-minute and --burst; null without them. */
export function readRate({ textOf, refuse }: Pick<Invocation, 'textOf' | 'refuse'>): ShownUser['rate'] {
  const [perMinute, burst] = [textOf('perMinute'), textOf('burst')]
  if (burst !== null && perMinute === null) refuse('--burst needs --per-minute.')
  return rateOf(perMinute, burst)
}

/** Throws if this cannot be a rate. */
export function rateOf(perMinute: string | null, burst: string | null): ShownUser['rate'] {
  if (perMinute === null) return null
  const given = { perMinute: Number(perMinute), ...(burst !== null && { burst: Number(burst) }) }
  const { data, error } = rateSchema.safeParse(given)
  if (error) throw new Error(`rate: ${error.issues[0]?.path.join('.')}: ${error.issues[0]?.message}`)
  return data
}
