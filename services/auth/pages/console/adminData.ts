// Requests for /admin/data, which needs the role admin, and what they show of the user's roles.
import { useState } from 'preact/hooks'
import { now } from './clock.ts'
import type { Exchanges } from './exchanges.ts'
import type { Session, Sessions } from './sessions.ts'
import { announce } from './ui.ts'

interface LastRequest {
  /** The roles of the user. */
  roles: string[]
  /** Why the request was refused, although the session is live; null if it was not. */
  refusal: string | null
}

export interface AdminData {
  /** Null if no request of the session has shown its roles. */
  of(session: Session): LastRequest | null
  get(session: Session): Promise<void>
}

export function useAdminData(url: string, exchanges: Exchanges, sessions: Sessions): AdminData {
  const [known, setKnown] = useState(new Map<number, LastRequest>())

  function show({ id }: Session, last: LastRequest): void {
    setKnown(known => new Map(known).set(id, last))
  }

  async function get(session: Session): Promise<void> {
    const { token } = session
    const sentAt = now()
    const request = { title: 'Admin data', method: 'GET', url, token, flow: 3 } as const
    const { status, body, problem } = await exchanges.send(request)
    const refusal = problem?.error === 'insufficient_scope' ? problem.detail : null
    const { data, roles } = (status === 200 ? body : {}) as { data?: string; roles?: string[] }
    // A session that lacks a role is live, and has been extended.
    sessions.noteAnswer(session, refusal === null ? status : 200, sentAt, data ?? problem?.detail ?? null)
    announce(data ?? `Refused: ${problem?.detail}`)
    if (roles) show(session, { roles, refusal })
    if (refusal !== null) show(session, { roles: await readRoles(token), refusal })
  }

  /** Empty if Auth does not answer. */
  async function readRoles(token: string): Promise<string[]> {
    const { status, body } = await exchanges.send({ title: 'My account', method: 'GET', url: 'users/me', token })
    return status === 200 ? (body as { roles: string[] }).roles : []
  }

  return { of: ({ id }) => known.get(id) ?? null, get }
}
