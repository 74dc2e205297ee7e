// Records for the tests of stores.
import { randomUUID } from 'node:crypto'
import {
  type Found,
  isAdmitted,
  noAuthority,
  type TokenLimits,
  type TokenRecord,
  type TokenRef,
  usualLogin,
} from '../../services/auth/stores/tokenPort.ts'
import type { UserRecord } from '../../services/auth/stores/userPort.ts'
import { drawSecret, drawTokenId, refOf } from '../../services/auth/tokens/format.ts'

export const minute = 60_000
/** The lineage of all renewals, except in tests about lineages. */
export const lineage = Buffer.alloc(32, 7).toString('base64url')
export const unlimited: TokenLimits = { perUser: Infinity, total: Infinity }

export const toMessage = (error: Error): string => error.message

export interface MadeToken {
  secret: string
  ref: TokenRef
  token: TokenRecord
}

/** A ten-minute session of a new user, unless `members` say otherwise. */
export function newTokenAt(start: number, { id: ownId, ...members }: Partial<TokenRecord> = {}): MadeToken {
  const userId = members.userId === undefined ? randomUUID() : members.userId
  const id = ownId ?? drawTokenId(userId, start)
  const secret = drawSecret(id)
  const token: TokenRecord = {
    id,
    kind: 'sliding',
    purpose: null,
    userId,
    username: userId === null ? null : 'somebody@example.com',
    credentialVersion: userId === null ? 0 : 1,
    createdAt: start,
    loginId: null,
    lastUsedAt: start,
    expiresAt: start + 10 * minute,
    absoluteExpiresAt: start + 60 * minute,
    ttlMs: 10 * minute,
    refreshCount: 0,
    scope: null,
    paused: false,
    rate: null,
    usesLeft: null,
    name: null,
    parent: null,
    authority: noAuthority,
    ...members,
  }
  if (members.loginId === undefined) token.loginId = usualLogin(token)
  return { secret, ref: refOf(secret), token }
}

export function newUserAt(start: number, members: Partial<UserRecord> = {}): UserRecord {
  return {
    id: randomUUID(),
    username: `${randomUUID()}@example.com`,
    passwordHash: 'a hash',
    credentialVersion: 1,
    endedVersion: 1,
    createdAt: start,
    confirmedAt: null,
    disabledAt: null,
    deletedAt: null,
    authority: noAuthority,
    mirroredAuthority: 0,
    attributes: '{}',
    email: null,
    pendingEmail: null,
    emailTokenId: null,
    ...members,
  }
}

export const newHash = (): string => refOf(drawSecret(drawTokenId(null, Date.now()))).hash

/** The results of a store all of whose parts have answered. */
export function answered(found: Found[]): (TokenRecord | null)[] {
  return found.map(token => {
    if (token !== null && !isAdmitted(token)) throw new Error(`a token is not admitted: ${JSON.stringify(token)}`)
    return token
  })
}

/** For `openSnapshotStore`: the users with these credential versions, without any authority. */
export function ownersWith(versions: Record<string, number>) {
  return async (userId: string) => {
    const credentialVersion = versions[userId]
    return credentialVersion === undefined ? null : { credentialVersion, authority: noAuthority }
  }
}
