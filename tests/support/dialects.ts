import { expect } from 'chai'
import { readAuthConfig } from '../../services/auth/config.ts'
import { ConfigError, type Environment } from '../../shared/config/readSettings.ts'
import { type Answer, ask as askAsIs } from './client.ts'
import { adminKey } from './credentials.ts'
import type { LogLine } from './log.ts'
import { sendRaw } from './raw.ts'
import { openTestAuth } from './servers.ts'

export const all = 'token-provider:0,token-manager:0,flask-jwt:0,flask-auth:0'

export const minute = 60_000

export const badHeader =
  'Invalid request. Your Request must have Authorization layer in a specific format. (Check the docs)'

export const uuidV4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

export const phrases = [
  'CANARY tandem over the hillock',
  'nine CANARY crayons, one mug',
  'a CANARY that hums in the dark',
]

export const [phrase, otherPhrase, wrongPhrase] = phrases as [string, string, string]

let count = 0

export const freshName = () => `person${++count}`

export const freshAddress = () => `person${++count}@example.com`

export interface Opened {
  auth: string
  authInternal: string
  tokenProvider: string
  tokenManager: string
  flaskJwt: string
  flaskAuth: string
}

export const logs: LogLine[][] = []

/** Every secret that a test received or invented; no log may contain one. */
export const secrets = new Set<string>(phrases)

export async function start(env: Environment = {}, now?: () => number) {
  const { lines, service } = await openTestAuth({ env: { DIALECTS: all, ...env }, ...(now && { now }) })
  logs.push(lines)
  const addresses = await service.listen()
  return { ...(addresses as unknown as Opened), addresses, lines, service }
}

/** Sends a request as curl does: without a content type unless one is given. */
export async function curl(
  method: string,
  url: string,
  { headers = {}, body }: { headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  const init = { method, headers: { connection: 'close', ...headers }, ...(body !== undefined && { body }) }
  const answer = await fetch(url, init)
  const text = await answer.text()
  const isJson = answer.headers.get('content-type')?.includes('json')
  return { status: answer.status, headers: answer.headers, text, body: isJson ? keepSecrets(JSON.parse(text)) : {} }
}

export async function ask(...of: Parameters<typeof askAsIs>): Promise<Answer> {
  const answer = await askAsIs(...of)
  keepSecrets(answer.body)
  return answer
}

function keepSecrets(body: Record<string, unknown>): Record<string, unknown> {
  for (const name of ['token', 'access_token', 'refresh_token']) {
    if (typeof body[name] === 'string') secrets.add(body[name])
  }
  return body
}

export const said = ({ status, body }: Answer) => ({ status, body })

export const asProblem = ({ status, headers }: Answer) => ({ status, type: headers.get('content-type') })

export const problem = (status: number) => ({ status, type: 'application/problem+json' })

/** The whole answer as on the wire, without the date. */
export async function bytesOf(url: string, path: string, body: unknown): Promise<string> {
  const text = JSON.stringify(body)
  const head = `POST ${path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: same\r\nConnection: close\r\nContent-Type: application/json`
  const answer = await sendRaw(url, `${head}\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`, 5000)
  expect(answer.closed).to.equal(true)
  return answer.text.replace(/^Date: .*$/m, 'Date: -')
}

export function problemsOf(env: Environment): string[] {
  try {
    readAuthConfig({ SERVICE_KEY: 'a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6', ADMIN_KEY: adminKey, ...env })
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

/**
 * Searches every log since this file began, at debug level. `atLeast` detects a suite that no longer records its
 * secrets.
 */
export function expectNoSecretInLogs(atLeast: number): void {
  const written = JSON.stringify(logs.flat().filter(({ event }) => event !== 'mail'))
  const found = [...secrets].filter(secret => written.includes(secret))
  expect(secrets.size).to.be.above(atLeast)
  expect(found).to.deep.equal([])
}
