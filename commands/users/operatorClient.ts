// What `npm run users` asks of a running Auth: the operator's routes of its internal listener, with the admin key.
import type { Credentials } from '../../services/auth/users/users.ts'
import { AppError } from '../../shared/http/errors.ts'

/** Everything of a user but the hash. */
export interface ShownUser {
  id: string
  username: string
  createdAt: number
  confirmedAt: number | null
  disabledAt: number | null
  deletedAt: number | null
}

export type ResetOffer = { sent: true } | { sent: false; link: string; expiresAt: number }

/** Nothing listens there. */
export class AuthIsAway extends Error {}

export type OperatorClient = ReturnType<typeof createOperatorClient>

const answersWithinMs = 5000

/** Rejects with a sentence for the operator; 404 is false or null. */
export function createOperatorClient({ url, key }: { url: string; key: string }) {
  async function ask(method: string, path: string, body?: unknown): Promise<{ status: number; body: unknown }> {
    const answer = await fetch(`${url}/admin/users${path}`, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        connection: 'close',
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      redirect: 'error',
      signal: AbortSignal.timeout(answersWithinMs),
    }).catch(error => {
      const { code, message } = error.cause ?? error
      if (code === 'ECONNREFUSED') throw new AuthIsAway(`Nothing listens at ${url}.`)
      throw new Error(`Auth at ${url} cannot be reached (${code ?? message}).`)
    })
    const text = await answer.text()
    if (answer.status === 401) throw new Error(`Auth at ${url} refuses this ADMIN_KEY.`)
    const content = parse(text)
    if (answer.ok || answer.status === 404) return { status: answer.status, body: content }
    const detail = (content as { detail?: unknown } | null)?.detail
    if (typeof detail !== 'string') throw new Error(`Auth at ${url} answers ${answer.status}.`)
    throw new AppError(answer.status === 409 ? 'conflict' : 'invalid_request', detail)
  }

  const isDone = async (method: string, path: string, body?: unknown) => (await ask(method, path, body)).status !== 404
  const pathOf = (id: string) => `/${encodeURIComponent(id)}`

  return {
    add: async (credentials: Credentials) => (await ask('POST', '', credentials)).body as ShownUser,

    async find(username: string): Promise<ShownUser | null> {
      const { body } = await ask('GET', `?username=${encodeURIComponent(username)}`)
      return (body as { users: ShownUser[] }).users[0] ?? null
    },

    async list(afterId: string | null, limit: number): Promise<ShownUser[]> {
      const after = afterId === null ? '' : `&after=${encodeURIComponent(afterId)}`
      return ((await ask('GET', `?limit=${limit}${after}`)).body as { users: ShownUser[] }).users
    },

    disable: (id: string) => isDone('PATCH', pathOf(id), { disabled: true }),
    enable: (id: string) => isDone('PATCH', pathOf(id), { disabled: false }),
    remove: (id: string) => isDone('DELETE', pathOf(id)),
    endSessions: (id: string) => isDone('DELETE', `${pathOf(id)}/sessions`),
    unlock: (id: string) => isDone('POST', `${pathOf(id)}/unlock`),

    async reset(id: string): Promise<ResetOffer | null> {
      const { status, body } = await ask('POST', `${pathOf(id)}/reset`)
      return status === 404 ? null : (body as ResetOffer)
    },
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null // 204, or an answer of something else than Auth
  }
}
