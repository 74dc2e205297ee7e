// What a token may do at this moment, from its own scope, that of its parent, and the roles of its user.
import { isApiKey, isHeldByProgram, type TokenRecord } from '../stores/tokenPort.ts'

export interface Rights {
  roles: string[]
  /** Null: no restriction beyond the roles. Empty: none of the routes that need a scope. */
  scope: string | null
}

/** A scope restricts a token that a program holds in its roles too: it has those of the user's roles that the scope names. */
export function rightsOf(token: TokenRecord): Rights {
  const { roles } = token.authority
  const scope = token.parent === null ? token.scope : commonScope(token.scope, token.parent.scope)
  if (scope === null || !isHeldByProgram(token)) return { roles, scope }
  const names = scope.split(' ')
  return { roles: roles.filter(role => names.includes(role)), scope }
}

/** The API key behind the token: itself, or its parent. Null if there is none. */
export function keyNameOf(token: TokenRecord): string | null {
  return isApiKey(token) ? token.name : (token.parent?.name ?? null)
}

/** Who acts for the user, if the token was delegated (RFC 8693, section 4.1); otherwise null. */
export function actorOf({ id, name, parent }: TokenRecord): { sub: string } | null {
  return parent === null ? null : { sub: name ?? id }
}

/** The names that are in both; null has every name. */
function commonScope(one: string | null, other: string | null): string | null {
  if (one === null || other === null) return one ?? other
  const names = other.split(' ')
  return one
    .split(' ')
    .filter(name => names.includes(name))
    .join(' ')
}
