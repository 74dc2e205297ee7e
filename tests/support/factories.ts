// Users and tokens of a running Auth, made over HTTP. Each call fails the test if Auth refuses.
import type { TokenKind } from '../../packages/client/contract.ts'
import { type Answer, ask, post } from './client.ts'
import { adminKey, demo, serviceKey } from './credentials.ts'

export interface Credentials {
  username: string
  password: string
}

/** What `POST /tokens` accepts. */
export interface TokenTerms {
  kind?: TokenKind
  ttlSeconds?: number
  absoluteTtlSeconds?: number
  userId?: string
  purpose?: string
  scope?: string
}

export interface IssuedToken {
  token: string
  tokenId: string
  expiresAt: number
  absoluteExpiresAt: number
}

let userCount = 0

export function newUsername(): string {
  return `user${++userCount}@example.com`
}

function expectStatus<T>(answer: Answer<T>, status: number, action: string): T {
  if (answer.status !== status) throw new Error(`${action} answered ${answer.status}: ${answer.text}`)
  return answer.body
}

/** Logs in and returns the token. */
export async function logIn(authUrl: string, credentials: Credentials = demo): Promise<string> {
  return expectStatus(await post<{ token: string }>(`${authUrl}/login`, credentials), 200, 'POST /login').token
}

/** Issues a token as an operator: fixed, for ten minutes and without a user, unless `terms` say otherwise. */
export async function issueToken(internalUrl: string, terms: TokenTerms = {}): Promise<IssuedToken> {
  const body = { kind: 'fixed', ttlSeconds: 600, ...terms }
  return expectStatus(await ask<IssuedToken>('POST', `${internalUrl}/tokens`, adminKey, body), 201, 'POST /tokens')
}

/** The answer of Auth's internal listener to `POST /validateToken`. */
export function validate<T = Record<string, unknown>>(internalUrl: string, body: unknown, key = serviceKey) {
  return ask<T>('POST', `${internalUrl}/validateToken`, key, body)
}

/** Whether Auth admits the token. Does not extend or consume the token. */
export async function isLive(internalUrl: string, token: string, purpose?: string): Promise<boolean> {
  const body = { token, touch: false, ...(purpose !== undefined && { purpose }) }
  const answer = await validate<{ authenticated: boolean }>(internalUrl, body)
  return expectStatus(answer, 200, 'POST /validateToken').authenticated
}
