// What users may do: their roles, how often, and whether they are paused. Hides the two steps of a change: first the user is written, then
// the token store, which every validation reads. A change that was interrupted between the steps is completed later.
import type { Rate, TokenStore } from '../stores/tokenPort.ts'
import type { UserRecord, UserStore } from '../stores/userPort.ts'

export type AuthorityEvent =
  | { type: 'roles_changed'; userId: string; roles: readonly string[] }
  | { type: 'user_paused' | 'user_resumed'; userId: string }
  | { type: 'rate_changed'; userId: string; rate: Rate | null }

export interface AuthorityChanges {
  roles?: string[] | undefined
  paused?: boolean | undefined
  /** Null: no limit. */
  rate?: Rate | null | undefined
}

export interface AuthoritiesOptions {
  users: UserStore
  tokens: Pick<TokenStore, 'setAuthority'>
  emit: (event: AuthorityEvent) => void
}

export interface Authorities {
  /**
   * Once resolved, no validation anywhere sees an earlier authority. If it rejects, the change may have been made and is then
   * completed later; repeating it completes it at once. Null if there is no such user.
   */
  change(id: string, changes: AuthorityChanges): Promise<UserRecord | null>

  /** Completes every change that was interrupted between its steps. */
  mirrorAll(): Promise<void>
}

const maxPerRound = 1000

export function createAuthorities({ users, tokens, emit }: AuthoritiesOptions): Authorities {
  async function mirror({ id, authority }: UserRecord): Promise<void> {
    await tokens.setAuthority(id, authority)
    await users.updateAuthority(id, authority.version, { mirroredAuthority: authority.version })
  }

  return {
    async change(id, changes) {
      for (;;) {
        const user = await users.findById(id)
        if (user === null || user.deletedAt !== null) return null
        const { version, roles, paused, rate } = user.authority
        const authority = {
          version: version + 1,
          roles: changes.roles ?? roles,
          paused: changes.paused ?? paused,
          rate: changes.rate === undefined ? rate : changes.rate,
        }
        const changed = await users.updateAuthority(id, version, { authority })
        if (changed === null) continue // another request was first
        await mirror(changed)
        if (changes.roles) emit({ type: 'roles_changed', userId: id, roles: changes.roles })
        if (changes.paused !== undefined) emit({ type: changes.paused ? 'user_paused' : 'user_resumed', userId: id })
        if (changes.rate !== undefined) emit({ type: 'rate_changed', userId: id, rate: changes.rate })
        return changed
      }
    },

    async mirrorAll() {
      for (let found = maxPerRound; found === maxPerRound; ) {
        const unmirrored = await users.findUnmirrored(maxPerRound)
        for (const user of unmirrored) await mirror(user)
        found = unmirrored.length
      }
    },
  }
}
