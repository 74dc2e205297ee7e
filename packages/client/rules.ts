// What a request needs besides a live token: roles of its user, or a scope of the token. Names match exactly, and there is no
// other policy.
import { maxNames, roleFormat, scopeNameFormat } from './contract.ts'
import { TokenError } from './errors.ts'

export type RuleKind = 'role' | 'scope'

/** One name, or several that are all needed. */
export type Names = string | readonly string[]

export interface Rule {
  kind: RuleKind
  names: readonly string[]
  /** For metrics and lists: `role:admin`, `scope:orders:read orders:write`. */
  label: string
}

/** What a verdict grants. */
export interface Granted {
  roles: readonly string[]
  scope: string | null
}

const formatOf: Record<RuleKind, { format: RegExp; expected: string }> = {
  role: {
    format: roleFormat,
    expected: 'a role such as admin: 1 to 64 of the characters a-z 0-9 : . _ -, the first a letter or a digit',
  },
  scope: {
    format: scopeNameFormat,
    expected: 'a scope such as orders:write: visible ASCII characters except " and \\',
  },
}

/** Throws a `TypeError` that says what is expected. */
export function ruleOf(kind: RuleKind, given: Names): Rule {
  const names = typeof given === 'string' ? [given] : given
  const { format, expected } = formatOf[kind]
  if (!Array.isArray(names) || names.length < 1 || names.length > maxNames) {
    throw new TypeError(`expected ${expected}; or a list of 1 to ${maxNames}, which are all needed.`)
  }
  for (const name of names) {
    if (typeof name === 'string' && format.test(name)) continue
    throw new TypeError(`expected ${expected}; not ${JSON.stringify(name)}. Several are a list: ['one', 'other'].`)
  }
  return { kind, names: [...names], label: `${kind}:${names.join(' ')}` }
}

/** A scope that is null restricts nothing: sessions may do whatever the roles of their user allow. */
export function isMet({ kind, names }: Rule, { roles, scope }: Granted): boolean {
  if (kind === 'scope' && scope === null) return true
  const granted = kind === 'role' ? roles : (scope as string).split(' ')
  return names.every(name => granted.includes(name))
}

/** 403, with the scope that is needed in the challenge (RFC 6750, section 3.1). A role has no place there. */
export function insufficientScope({ kind, names }: Rule): TokenError {
  const needed = names.join(kind === 'role' ? ', ' : ' ')
  const holder = kind === 'role' ? 'the user of this token' : 'this token'
  return new TokenError(
    'insufficient_scope',
    `This needs the ${kind}${names.length > 1 ? 's' : ''} ${needed}, which ${holder} does not have.`,
    {
      'WWW-Authenticate': `Bearer realm="latchkey", error="insufficient_scope"${kind === 'scope' ? `, scope="${needed}"` : ''}`,
    },
  )
}
