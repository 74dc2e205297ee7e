// Register users and verify their passwords. Hides how usernames are compared and that unknown users cost a hash too.
import { randomUUID } from 'node:crypto'
import { orUnavailable } from '../../../shared/errors.ts'
import type { UserRecord, UserStore } from '../stores/ports.ts'
import type { Passwords } from './passwords.ts'

/** Carries user ids, never what was typed: people type their password into the wrong field. */
export type UserEvent =
  | { type: 'login succeeded'; userId: string }
  | { type: 'login failed'; userId: string | null; reason: 'unknown user' | 'wrong password' }

export interface Credentials {
  username: string
  password: string
}

export interface UsersOptions {
  store: UserStore
  passwords: Passwords
  /** Epoch milliseconds. */
  now: () => number
  observe: (event: UserEvent) => void
}

export type Users = ReturnType<typeof createUsers>

export function createUsers({ store, passwords, now, observe }: UsersOptions) {
  return {
    /** Null if the username is taken. `id`: where it must be the same after a restart. */
    async register({ username, password }: Credentials, id: string = randomUUID()): Promise<UserRecord | null> {
      const user: UserRecord = {
        id,
        username: normalise(username),
        passwordHash: await passwords.hash(password),
        credentialVersion: 1,
        createdAt: now(),
      }
      return (await ask(store.insert(user))) ? user : null
    },

    find(id: string): Promise<UserRecord | null> {
      return ask(store.findById(id))
    },

    /** What tokens issued from now on carry; those issued before can be told from them. Null where there is no such user. */
    raiseCredentialVersion(id: string): Promise<number | null> {
      return ask(store.raiseCredentialVersion(id))
    },

    /** Null for an unknown user and for a wrong password, after the same time. `signal`: the caller went away. */
    async verify({ username, password }: Credentials, signal: AbortSignal): Promise<UserRecord | null> {
      const user = await ask(store.findByUsername(normalise(username)))
      const matches = await passwords.verify(password, user?.passwordHash ?? null, signal)
      if (user && matches) {
        observe({ type: 'login succeeded', userId: user.id })
        return user
      }
      observe({ type: 'login failed', userId: user?.id ?? null, reason: user ? 'wrong password' : 'unknown user' })
      return null
    },
  }
}

/** NFKC, then lower case: what looks the same and what differs in capitals only is one username. */
function normalise(username: string): string {
  return username.normalize('NFKC').toLowerCase()
}

function ask<T>(answer: Promise<T>): Promise<T> {
  return orUnavailable(answer, 'The user store could not be asked.')
}
