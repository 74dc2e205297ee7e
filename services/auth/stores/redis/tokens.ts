// How tokens are addressed and packed in Redis: keys, shortened hashes, and the answers of the scripts.
import { tokenKinds } from '../../../../packages/client/contract.ts'
import { packedRate, unpackedRate } from '../rates.ts'
import {
  type Authority,
  noAuthority,
  type Parent,
  type TokenChanges,
  type TokenRecord,
  usualLogin,
} from '../tokenPort.ts'
import { hashBytes, noId } from './library.ts'

/** A token as the scripts return it. */
export type PackedToken = [
  rest: string,
  kind: number,
  version: number,
  createdAt: number,
  lastUsedAt: number,
  expiresAt: number,
  absoluteExpiresAt: number,
  ttlMs: number,
  refreshCount: number,
  purpose: string,
  userId: string | null,
  username: string | null,
  login: string | null,
  scope: string,
  paused: '0' | '1',
  authority: string | null,
  perMinute: number,
  burst: number,
  usesLeft: number | null,
  changes: number,
  name: string,
  parent: string | null,
  parentScope: string | null,
  parentName: string | null,
  isParentUsedUp: 0 | 1,
]

/** The routing tag of a token id. */
export const tagOfId = (id: string): string => id.slice(0, 4)

export const restOf = (id: string): string => id.slice(4)

/** The key that holds every token of a routing tag. */
export const keyOf = (prefix: string, tag: string): string => `${prefix}{${tag}}`

export const tagOfKey = (prefix: string, key: string): string => key.slice(prefix.length + 1, -1)

/** Matches the keys of all tags. */
export const keyPattern = (prefix: string): string => `${prefix}{????}`

/** The part of a SHA-256 that the store keeps. */
export function short(hash: string): Buffer {
  return Buffer.from(hash, 'base64url').subarray(0, hashBytes)
}

/** The arguments of `insertScript` that describe the token. */
export function packed(token: TokenRecord, hash: string): (string | number | Buffer)[] {
  const { id, kind, purpose, userId, username, credentialVersion, createdAt, lastUsedAt, expiresAt, loginId } = token
  const identity = [restOf(id), short(hash), tokenKinds.indexOf(kind) + 1, purpose ?? '', userId ?? '', username ?? '']
  const times = [createdAt, lastUsedAt, expiresAt, token.absoluteExpiresAt, token.ttlMs]
  const login = loginId === usualLogin(token) ? '' : loginId === null ? noId : restOf(loginId)
  const rare = [token.scope ?? '', token.paused ? '1' : '0', packedAuthority(token.authority), ...packedLimits(token)]
  const ofProgram = [token.name ?? '', token.parent === null ? '' : restOf(token.parent.id)]
  return [...identity, credentialVersion, ...times, token.refreshCount, login, ...rare, ...ofProgram]
}

function packedLimits({ rate, usesLeft }: Pick<TokenRecord, 'rate' | 'usesLeft'>): number[] {
  return [rate?.perMinute ?? 0, rate?.burst ?? 0, usesLeft ?? 0]
}

/** Empty if nothing was ever changed. */
export function packedAuthority({ version, roles, paused, rate }: Authority): string {
  if (version === 0) return ''
  return `${version} ${paused ? 1 : 0} ${roles.join(' ')}${rate === null ? '' : ` ;${packedRate(rate)}`}`
}

/** The arguments of `changeScript` that describe the changes. */
export function packedChanges({ paused, scope, rate, usesLeft, name }: TokenChanges): (string | number)[] {
  return [
    paused === undefined ? '' : paused ? '1' : '0',
    scope === undefined ? '' : `=${scope ?? ''}`,
    ...(rate === undefined ? ['', ''] : [rate?.perMinute ?? 0, rate?.burst ?? 0]),
    usesLeft === undefined ? '' : (usesLeft ?? 0),
    name === undefined ? '' : `=${name ?? ''}`,
  ]
}

/** The arguments of `repeatChangeScript`, from the answer of `changeScript`. */
export function packedRepeat(changed: PackedToken): (string | number)[] {
  const [rest, , , , , , , , , , , , , scope, paused, , perMinute, burst, usesLeft, changes, name] = changed
  return [rest, paused, scope, perMinute, burst, usesLeft ?? 0, changes, name]
}

function unpackedAuthority(text: string | null): Authority {
  if (text === null) return noAuthority
  const [names = '', rate] = text.split(';')
  const [version, paused, ...roles] = names.trimEnd().split(' ')
  return {
    version: Number(version),
    roles,
    paused: paused === '1',
    rate: rate === undefined ? null : unpackedRate(rate),
  }
}

export function unpacked(tag: string, answer: PackedToken): TokenRecord {
  const [rest, kindNumber, credentialVersion, ...others] = answer
  const [createdAt, lastUsedAt, expiresAt, absoluteExpiresAt, ttlMs, refreshCount, ownPurpose, ...user] = others
  const [userId, username, login, scope, paused, authority, perMinute, burst, usesLeft, , name, parent] = user
  const id = tag + rest
  const kind = tokenKinds[kindNumber - 1] as TokenRecord['kind']
  const purpose = ownPurpose === '' ? null : ownPurpose
  const loginId = login === null ? usualLogin({ id, kind, purpose, userId }) : login === noId ? null : tag + login
  return {
    id,
    kind,
    purpose,
    userId,
    username,
    credentialVersion,
    createdAt,
    loginId,
    lastUsedAt,
    expiresAt,
    absoluteExpiresAt,
    ttlMs,
    refreshCount,
    scope: scope === '' ? null : scope,
    paused: paused === '1',
    rate: perMinute === 0 ? null : { perMinute, burst },
    usesLeft,
    name: name === '' ? null : name,
    parent: parent === null ? null : unpackedParent(tag + parent, answer),
    authority: unpackedAuthority(authority),
  }
}

function unpackedParent(id: string, answer: PackedToken): Parent {
  const [scope, name] = answer.slice(22, 24) as [string | null, string | null]
  if (scope === null) return { id, scope: '', name: null } // it is gone
  return { id, scope: scope === '' ? null : scope, name: name === '' ? null : name }
}

/** Whether the touch that returned the token took the last use of its parent, and ended it. */
export const hasUsedUpParent = (answer: PackedToken): boolean => answer[24] === 1
