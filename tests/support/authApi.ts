// A client for the routes of Auth, which checks the shape of every error.
import { expect } from 'chai'
import type { Admission, TokenKind, Verdict } from '../../packages/client/contract.ts'
import { type Answer, ask } from './client.ts'
import { adminKey, demo, serviceKey } from './credentials.ts'
import { type Credentials, type IssuedToken, issueToken, newUsername, type TokenTerms } from './factories.ts'
import type { LogLine } from './log.ts'
import { sendRaw } from './raw.ts'

export const phrases = {
  first: 'CANARY tandem over the hillock',
  second: 'nine CANARY crayons, one mug',
  third: 'a CANARY that hums in the dark',
  wrong: 'a CANARY must have gargled',
}

export interface PublicUser {
  id: string
  username: string
  createdAt: number
}

export interface SessionEntry {
  id: string
  createdAt: number
  lastUsedAt: number
  expiresAt: number
  absoluteExpiresAt: number
  refreshCount: number
  paused: boolean
  current: boolean
}

export type AuthApi = ReturnType<typeof authApi>

/** Remembers every password that it sends, and fails if an answer repeats one. */
export function authApi({ url, internalUrl, lines }: { url: string; internalUrl: string; lines: LogLine[] }) {
  const sent = new Set<string>()

  async function send<T = Record<string, unknown>>(
    method: string,
    path: string,
    bearer: string | null,
    body: Record<string, unknown>,
  ) {
    const passwords = [body['password'], body['currentPassword']].filter(value => typeof value === 'string')
    // A shorter password could occur in an answer by chance.
    const telling = passwords.filter(password => password.length > 5)
    for (const password of telling) sent.add(password)
    const answer = await ask<T>(method, url + path, bearer, body)
    for (const password of telling) {
      expect(answer.text).to.not.include(JSON.stringify(password).slice(1, -1))
      expect(answer.text).to.not.include(password)
    }
    return answer
  }

  const operate = <T = Record<string, unknown>>(
    method: string,
    path: string,
    key: string | null = adminKey,
    body?: unknown,
  ) => ask<T>(method, internalUrl + path, key, body)

  const validate = async (body: object, key = serviceKey) =>
    (await operate<Verdict>('POST', '/validateToken', key, body)).body

  const validateMany = async (body: object) =>
    (await operate<{ verdicts: Verdict[] }>('POST', '/validateToken', serviceKey, body)).body.verdicts

  const api = {
    url,
    internalUrl,
    send,
    operate,
    validate,
    validateMany,
    register: (credentials: Credentials) => send<PublicUser>('POST', '/users', null, { ...credentials }),
    logIn: (credentials: Credentials) => send('POST', '/login', null, { ...credentials }),
    get: <T = Record<string, unknown>>(path: string, bearer: string) => ask<T>('GET', url + path, bearer),
    post: (path: string, bearer: string | null, body?: unknown) => ask('POST', url + path, bearer, body),
    delete: (path: string, bearer: string | null) => ask('DELETE', url + path, bearer),

    change: (bearer: string, currentPassword: string, password: string) =>
      send<PublicUser>('PATCH', '/users/me', bearer, { currentPassword, password }),

    remove: (bearer: string, currentPassword: string) => send('DELETE', '/users/me', bearer, { currentPassword }),

    /** A new user, and a session of that user. */
    async newUser({ username = newUsername(), password = phrases.first }: Partial<Credentials> = {}) {
      const { status, body, text } = await api.register({ username, password })
      expect(status, text).to.equal(201)
      return { user: body, credentials: { username, password }, token: await api.issueTo(body.id) }
    },

    /** Logs in. */
    async session(credentials: Credentials = demo): Promise<string> {
      const { status, body, text } = await api.logIn(credentials)
      expect(status, text).to.equal(200)
      return body['token'] as string
    },

    issue: (terms: TokenTerms): Promise<IssuedToken> => issueToken(internalUrl, terms),

    /** Issues a token without a log-in, which would cost a hash. A sliding token without a purpose is an ordinary session. */
    async issueTo(userId: string, kind: TokenKind = 'sliding', purpose?: string): Promise<string> {
      const absolute = kind === 'sliding' ? { absoluteTtlSeconds: 3600 } : {}
      return (await api.issue({ kind, userId, ...absolute, ...(purpose !== undefined && { purpose }) })).token
    },

    /** Returns the tokens that Auth admits. Does not extend or consume them. */
    async live(tokens: string[], purpose?: string): Promise<string[]> {
      const verdicts: Verdict[] = []
      for (let i = 0; i < tokens.length; i += 256) {
        const question = { tokens: tokens.slice(i, i + 256), touch: false, ...(purpose !== undefined && { purpose }) }
        verdicts.push(...(await validateMany(question)))
      }
      return tokens.filter((_, i) => verdicts[i]?.authenticated)
    },

    isLive: async (token: string, purpose?: string) => (await api.live([token], purpose)).length === 1,

    /** The token's owner and terms. Does not extend or consume the token. */
    async admissionOf(token: string): Promise<Admission> {
      const verdict = await validate({ token, touch: false })
      expect(verdict.authenticated).to.equal(true)
      return verdict as Admission
    },

    /** The sessions of the token's user. */
    async list(token: string): Promise<SessionEntry[]> {
      const { status, body, text } = await api.get<{ sessions: SessionEntry[] }>('/sessions', token)
      expect(status, text).to.equal(200)
      return body.sessions
    },

    /** The user as an operator sees them; undefined if unknown. */
    async find(username: string): Promise<Record<string, unknown> | undefined> {
      const path = `/admin/users?username=${encodeURIComponent(username)}`
      const { status, body, text } = await operate<{ users: Record<string, unknown>[] }>('GET', path)
      expect(status, text).to.equal(200)
      return body.users[0]
    },

    /**
     * The log contains no password that was sent, no error, and no warning but the one that tests do not wait for the disk of
     * PostgreSQL.
     */
    expectQuietLog(): void {
      const log = JSON.stringify(lines)
      for (const password of sent) expect(log.includes(JSON.stringify(password).slice(1, -1)), password).to.equal(false)
      const problems = lines.filter(({ level }) => level === 'error' || level === 'warn')
      expect(problems.filter(({ warning }) => !/synchronous_commit = off/.test(String(warning)))).to.deep.equal([])
    },
  }
  return api
}

export function expectProblem({ status, headers, body }: Answer<unknown>, expected: number, error: string): void {
  expect(body).to.include({ status: expected, error })
  expect(status).to.equal(expected)
  expect(headers.get('content-type')).to.equal('application/problem+json')
}

export function expectInvalidToken(answer: Answer<unknown>): void {
  expectProblem(answer, 401, 'invalid_token')
  expect(answer.headers.get('www-authenticate')).to.equal('Bearer realm="latchkey", error="invalid_token"')
}

/** The whole answer to `POST /login` as text, without the time of day. */
export async function rawLogin(url: string, credentials: Credentials): Promise<string> {
  const body = JSON.stringify(credentials)
  const head = ['POST /login HTTP/1.1', 'Host: auth', 'Content-Type: application/json', 'X-Request-Id: the-same']
  const length = `Content-Length: ${Buffer.byteLength(body)}`
  const { text } = await sendRaw(url, `${[...head, length, 'Connection: close'].join('\r\n')}\r\n\r\n${body}`, 5000)
  return text.replace(/^Date: .*$/m, 'Date: …')
}
