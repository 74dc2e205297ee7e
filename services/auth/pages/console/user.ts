// The user whom the operator has looked up: roles, rate, and whether the user is paused. Kept up to date by events.
import { useState } from 'preact/hooks'
import type { StreamEvent, StreamedRate } from '../../observability/streamEvents.ts'
import type { Outcome } from './exchanges.ts'
import { announce } from './ui.ts'

export interface ShownUser {
  id: string
  username: string
  roles: string[]
  paused: boolean
  rate: StreamedRate | null
  /** Has no password, and is for a program. */
  serviceAccount: boolean
}

export interface UserChange {
  roles?: string[]
  paused?: boolean
  /** Without `burst`, a minute may come at once. */
  rate?: { perMinute: number; burst?: number } | null
}

export type Send = (method: string, url: string, title: string, body?: unknown) => Promise<Outcome>

export interface LookedUpUser {
  /** Null until a user has been found. */
  shown: ShownUser | null
  /** Why the last request failed; null if it did not. */
  problem: string | null
  find(username: string): Promise<void>
  /** Resolves to true if Auth has made the change. */
  change(user: ShownUser, change: UserChange, title: string): Promise<boolean>
  apply(event: StreamEvent): void
}

export function useUser(send: Send): LookedUpUser {
  const [shown, setShown] = useState<ShownUser | null>(null)
  const [problem, setProblem] = useState<string | null>(null)

  async function find(username: string): Promise<void> {
    const url = `admin/users?username=${encodeURIComponent(username)}`
    const { status, body, problem } = await send('GET', url, `Find ${username}`)
    const user = status === 200 ? ((body as { users: ShownUser[] }).users[0] ?? null) : null
    setShown(user)
    setProblem(user ? null : (problem?.detail ?? 'There is no such user.'))
  }

  async function change(user: ShownUser, change: UserChange, title: string): Promise<boolean> {
    const { status, body, problem } = await send('PATCH', `admin/users/${encodeURIComponent(user.id)}`, title, change)
    if (status === 200) setShown(body as ShownUser)
    setProblem(status === 200 ? null : (problem?.detail ?? 'The user could not be changed.'))
    if (status === 200) announce(`${title}: done.`)
    return status === 200
  }

  function apply({ name, data }: StreamEvent): void {
    if (name === 'roles_changed') show(data.userId, { roles: [...data.roles] })
    if (name === 'rate_changed') show(data.userId, { rate: data.rate })
    if (name === 'user_paused' || name === 'user_resumed') show(data.userId, { paused: name === 'user_paused' })
  }

  function show(userId: string, change: Partial<ShownUser>): void {
    setShown(user => (user?.id === userId ? { ...user, ...change } : user))
  }

  return { shown, problem, find, change, apply }
}
