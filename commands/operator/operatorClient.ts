// A client for the operator's routes of a running Auth.
import type { Attributes } from '../../services/auth/users/attributes.ts'
import type { AuthorityChanges } from '../../services/auth/users/authorities.ts'
import { AppError } from '../../shared/http/errors.ts'
import { escaped } from '../text.ts'

/** A user without the password hash. */
export interface ShownUser {
  id: string
  username: string
  createdAt: number
  confirmedAt: number | null
  disabledAt: number | null
  deletedAt: number | null
  roles: string[]
  paused: boolean
  email: string | null
  pendingEmail: string | null
  attributes: Attributes
  rate: { perMinute: number; burst: number } | null
  serviceAccount: boolean
}

/** With a password, or a service account. */
export type NewUser = { username: string; roles: string[] } & ({ password: string } | { serviceAccount: true })

/** An API key or a delegated token, without the secret. */
export interface ShownKey {
  id: string
  name: string | null
  parentId: string | null
  username: string
  scope: string | null
  paused: boolean
  createdAt: number
  expiresAt: number | null
  lastUsedAt: number | null
  useCount: number
}

export interface UsageBucket {
  startsAt: number
  count: number
  delegatedCount: number
}

export interface NewKey {
  userId: string
  name: string
  scope?: string
  expiresAt?: number
  rate?: { perMinute: number; burst?: number }
}

/** A token without its secret. Instants are epoch milliseconds. */
export interface ShownToken {
  id: string
  kind: string
  purpose: string | null
  userId: string | null
  username: string | null
  createdAt: number
  lastUsedAt: number
  expiresAt: number
  absoluteExpiresAt: number
  refreshCount: number
  scope: string | null
  paused: boolean
  rate: { perMinute: number; burst: number } | null
  usesLeft: number | null
  name: string | null
  parentId: string | null
}

export interface NewToken {
  kind: string
  ttlSeconds: number
  absoluteTtlSeconds?: number
  userId?: string
  purpose?: string
  scope?: string
  uses?: number
  rate?: { perMinute: number; burst?: number }
}

export type IssuedToken = NewToken & { token: string; tokenId: string; expiresAt: number }

/** Selects tokens: of a user, with a name in their scope, or by how the id or the username begins. */
export interface TokenSelection {
  userId?: string
  scope?: string
  search?: string
}

export type ResetOffer = { sent: true } | { sent: false; link: string; expiresAt: number }

export class AuthNotListening extends Error {}

export type OperatorClient = ReturnType<typeof createOperatorClient>

const responseTimeoutMs = 5000

/** Rejects with a message for the operator. For an unknown user, functions resolve to false or null. */
export function createOperatorClient({ url, key }: { url: string; key: string }) {
  async function send(method: string, path: string, body?: unknown): Promise<{ status: number; body: unknown }> {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        connection: 'close',
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      redirect: 'error',
      signal: AbortSignal.timeout(responseTimeoutMs),
    }).catch(error => {
      const { code, message } = error.cause ?? error
      if (code === 'ECONNREFUSED') throw new AuthNotListening(`Nothing listens at ${url}.`)
      throw new Error(`Auth at ${url} cannot be reached (${code ?? message}).`)
    })
    const text = await response.text()
    if (response.status === 401) throw new Error(`Auth at ${url} refuses this ADMIN_KEY.`)
    const content = parse(text)
    if (response.ok || response.status === 404) return { status: response.status, body: content }
    const detail = (content as { detail?: unknown } | null)?.detail
    if (typeof detail !== 'string') throw new Error(`Auth at ${url} answered ${response.status}.`)
    throw new AppError(response.status === 409 ? 'conflict' : 'invalid_request', detail)
  }

  const succeeds = async (method: string, path: string, body?: unknown) =>
    (await send(method, path, body)).status !== 404
  const pathOf = (id: string) => `/admin/users/${encodeURIComponent(id)}`
  const tokenPathOf = (id: string) => `/tokens/${encodeURIComponent(id)}`
  const keyPathOf = (id: string) => `/keys/${encodeURIComponent(id)}`

  async function find(username: string): Promise<ShownUser | null> {
    const { body } = await send('GET', `/admin/users?username=${encodeURIComponent(username)}`)
    return (body as { users: ShownUser[] }).users[0] ?? null
  }

  /** Asks for one page after the other. */
  async function* listed<Item>(name: 'tokens' | 'keys', selection: object): AsyncGenerator<Item> {
    for (let after: string | null = null; ; ) {
      const query = new URLSearchParams({ limit: '200', ...selection, ...(after !== null && { after }) })
      const page = (await send('GET', `/${name}?${query}`)).body as {
        tokens?: Item[]
        keys?: Item[]
        next: string | null
      }
      yield* page[name] ?? []
      if (page.next === null) return
      after = page.next
    }
  }

  return {
    add: async (user: NewUser) => (await send('POST', '/admin/users', user)).body as ShownUser,

    find,

    async list(afterId: string | null, limit: number): Promise<ShownUser[]> {
      const after = afterId === null ? '' : `&after=${encodeURIComponent(afterId)}`
      return ((await send('GET', `/admin/users?limit=${limit}${after}`)).body as { users: ShownUser[] }).users
    },

    disable: (id: string) => succeeds('PATCH', pathOf(id), { disabled: true }),
    enable: (id: string) => succeeds('PATCH', pathOf(id), { disabled: false }),
    change: (id: string, changes: AuthorityChanges) => succeeds('PATCH', pathOf(id), changes),
    setAttributes: (id: string, attributes: Attributes) => succeeds('PATCH', pathOf(id), { attributes }),
    setEmail: (id: string, email: string | null) => succeeds('PATCH', pathOf(id), { email }),
    rename: (id: string, username: string) => succeeds('PATCH', pathOf(id), { username }),
    setPassword: (id: string, password: string) => succeeds('PATCH', pathOf(id), { password }),
    remove: (id: string) => succeeds('DELETE', pathOf(id)),
    revokeSessions: (id: string) => succeeds('DELETE', `${pathOf(id)}/sessions`),
    unlock: (id: string) => succeeds('POST', `${pathOf(id)}/unlock`),

    /** The id of an existing user; rejects if there is none with this name. */
    async idOf(username: string): Promise<string> {
      const user = await find(username)
      if (user === null) throw noSuchUser(username)
      return user.id
    },

    listTokens: (selection: TokenSelection) => listed<ShownToken>('tokens', selection),
    issueToken: async (token: NewToken) => (await send('POST', '/tokens', token)).body as IssuedToken,
    pauseToken: (id: string, paused: boolean) => succeeds('PATCH', tokenPathOf(id), { paused }),
    revokeToken: (id: string) => succeeds('DELETE', tokenPathOf(id)),

    /** The keys of all users, or those of one user. */
    listKeys: (userId: string | null) => listed<ShownKey>('keys', userId === null ? {} : { userId }),
    addKey: async (key: NewKey) => (await send('POST', '/keys', key)).body as { id: string; secret: string },
    pauseKey: (id: string, paused: boolean) => succeeds('PATCH', keyPathOf(id), { paused }),
    endKey: (id: string) => succeeds('DELETE', keyPathOf(id)),

    /** Rejects if there is no such key, or if Auth does not count uses. */
    async readUsage(id: string, by: string): Promise<UsageBucket[]> {
      const { status, body } = await send('GET', `${keyPathOf(id)}/usage?by=${encodeURIComponent(by)}`)
      if (status === 404) throw new AppError('not_found', (body as { detail: string }).detail)
      return (body as { buckets: UsageBucket[] }).buckets
    },

    async reset(id: string): Promise<ResetOffer | null> {
      const { status, body } = await send('POST', `${pathOf(id)}/reset`)
      return status === 404 ? null : (body as ResetOffer)
    },
  }
}

export function noSuchUser(username: string): Error {
  return new Error(`There is no user ${escaped(username)}.`)
}

/** Null if it is not JSON: an empty body, or the response of another server. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
