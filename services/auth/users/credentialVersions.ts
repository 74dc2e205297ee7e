// Changes to a user that end tokens. Hides the two steps: first the user is written under a higher credential version, then
// the tokens of lower versions end. A change that was interrupted between the steps is completed later.
import { setTimeout as sleep } from 'node:timers/promises'
import type { UserChanges, UserRecord, UserStore } from '../stores/userPort.ts'

export type DeletionEvent = { type: 'user_deleted'; userId: string }

/** Revokes the user's tokens of a smaller version, except the one with the id `keep`. */
export type RevokeTokens = (userId: string, credentialVersion: number, keep: string | null) => Promise<void>

export interface CredentialVersionsOptions {
  store: UserStore
  revokeTokens: RevokeTokens
  emit: (event: DeletionEvent) => void
  /** Resolves after `ms` milliseconds. */
  wait?: (ms: number) => Promise<unknown>
}

export interface CredentialVersions {
  /** Step one: writes `changes` under the next version. Null if the stored version is no longer that of `user`. */
  raise(user: UserRecord, changes: UserChanges): Promise<UserRecord | null>

  /**
   * Step two: revokes the tokens of lower versions and records that they are revoked. If this rejects, or the process ends
   * first, `finishAll` completes the change.
   */
  finish(user: UserRecord, keep: string | null): Promise<void>

  /**
   * Takes both steps, whatever the current version is. Null if there is no such user, or if `isAllowed` returns false for
   * the current state of the user.
   */
  change(id: string, changes: UserChanges, isAllowed?: (user: UserRecord) => boolean): Promise<UserRecord | null>

  /**
   * Completes every change that was interrupted between its steps. Leaves out changes that may be under way in this or
   * another process, because it does not know which token they keep.
   */
  finishAll(): Promise<void>
}

const maxPerRound = 1000
/** The longest time between the two steps of a change that is under way: more than the deadlines of both stores together. */
export const underWayMs = 2000

export function createCredentialVersions({
  store,
  revokeTokens,
  emit,
  wait = sleep,
}: CredentialVersionsOptions): CredentialVersions {
  const raise: CredentialVersions['raise'] = ({ id, credentialVersion: version }, changes) =>
    store.update(id, version, { ...changes, credentialVersion: version + 1 })

  async function finish(user: UserRecord, keep: string | null): Promise<void> {
    const { id, credentialVersion } = user
    // If an earlier change is completed together with this one, `keep` may be a token that the earlier one had to end.
    const isOnly = user.endedVersion === credentialVersion - 1 && user.disabledAt === null
    await revokeTokens(id, credentialVersion, isOnly ? keep : null)
    if (user.deletedAt === null) await store.update(id, credentialVersion, { endedVersion: credentialVersion })
    else if (await store.delete(id)) emit({ type: 'user_deleted', userId: id })
  }

  return {
    raise,
    finish,

    async change(id, changes, isAllowed = () => true) {
      for (;;) {
        const user = await store.findById(id)
        if (user === null || !isAllowed(user)) return null
        const raised = await raise(user, changes)
        if (raised === null) continue // another request raised the version first
        await finish(raised, null)
        return raised
      }
    },

    async finishAll() {
      for (let found = maxPerRound; found === maxPerRound; ) {
        const before = await store.findUnfinished(maxPerRound)
        if (before.length === 0) return
        await wait(underWayMs)
        const versions = new Map(before.map(({ id, credentialVersion }) => [id, credentialVersion]))
        const unfinished = await store.findUnfinished(maxPerRound)
        for (const user of unfinished) if (versions.get(user.id) === user.credentialVersion) await finish(user, null)
        found = unfinished.length
      }
    },
  }
}

/** Whether tokens of earlier versions have yet to end. */
export function isUnfinished({ endedVersion, credentialVersion }: UserRecord): boolean {
  return endedVersion < credentialVersion
}
