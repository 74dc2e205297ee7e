// Every pair of dialects, open beside Auth's own listeners: a token opens only what it was issued for and nothing on
// another listener, no other string opens anything, and all listeners count towards the same limits.
import { expect } from 'chai'
import { readAuthConfig } from '../../../services/auth/config.ts'
import { type DialectName, dialectNames, listenerNameOf } from '../../../services/auth/dialects/index.ts'
import { drawSecret, drawTokenId } from '../../../services/auth/tokens/format.ts'
import type { Environment } from '../../../shared/config/readSettings.ts'
import { ask } from '../../support/client.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import { sendRaw } from '../../support/raw.ts'
import { closeServers, openTestAuth } from '../../support/servers.ts'

type Surface = 'auth' | DialectName
type Kind = 'session' | 'refresh' | 'uuid' | 'numbered' | 'fixed' | 'guest' | 'reset'

interface Opened {
  surfaces: Surface[]
  /** The address of a surface; that of Auth's internal listener is `internal`. */
  at(surface: Surface): string
  internal: string
}

interface Source {
  surface: Surface
  name: string
  kind: Kind
  /** A new secret. */
  issue(opened: Opened): Promise<string>
}

interface Door {
  surface: Surface
  name: string
  opensTo: Kind[]
  /** The status, and whether the secret opened the door. */
  knock(opened: Opened, secret: string): Promise<{ status: number; isOpen: boolean }>
}

const memberOf = (body: Record<string, unknown>, name: string): string => {
  expect(body[name], name).to.be.a('string')
  return body[name] as string
}
const operatorIssues = async (internal: string, terms: object) =>
  memberOf((await ask('POST', `${internal}/tokens`, adminKey, { ttlSeconds: 600, ...terms })).body, 'token')
const flaskAuthLogin = async (url: string) =>
  (await ask('POST', `${url}/login`, null, { email: demo.username, password: demo.password })).body

const sources: Source[] = [
  {
    surface: 'auth',
    name: 'a session of /login',
    kind: 'session',
    issue: async ({ at }) => memberOf((await ask('POST', `${at('auth')}/login`, null, demo)).body, 'token'),
  },
  {
    surface: 'auth',
    name: 'a fixed token of the operator',
    kind: 'fixed',
    issue: ({ internal }) => operatorIssues(internal, { kind: 'fixed' }),
  },
  {
    surface: 'auth',
    name: 'a sliding token of a guest',
    kind: 'guest',
    issue: ({ internal }) => operatorIssues(internal, { kind: 'sliding' }),
  },
  {
    surface: 'auth',
    name: 'a token to reset a password',
    kind: 'reset',
    issue: ({ internal }) => operatorIssues(internal, { kind: 'single-use', purpose: 'reset' }),
  },
  {
    surface: 'token-provider',
    name: 'a UUID',
    kind: 'uuid',
    issue: async ({ at }) =>
      memberOf((await ask('POST', `${at('token-provider')}/generate_token`, null, {})).body, 'token'),
  },
  {
    surface: 'token-manager',
    name: 'a numbered token',
    kind: 'numbered',
    issue: async ({ at }) => memberOf((await ask('POST', `${at('token-manager')}/app/token`, null, {})).body, 'token'),
  },
  {
    surface: 'flask-jwt',
    name: 'a session of flask-jwt',
    kind: 'session',
    issue: async ({ at }) =>
      memberOf((await ask('POST', `${at('flask-jwt')}/authenticate_user`, null, demo)).body, 'token'),
  },
  {
    surface: 'flask-auth',
    name: 'an access token',
    kind: 'session',
    issue: async ({ at }) => memberOf(await flaskAuthLogin(at('flask-auth')), 'access_token'),
  },
  {
    surface: 'flask-auth',
    name: 'a refresh token',
    kind: 'refresh',
    issue: async ({ at }) => memberOf(await flaskAuthLogin(at('flask-auth')), 'refresh_token'),
  },
]

/** A route that takes a bearer token and answers 200 or 204 if the token opens it. */
const route = (surface: Surface, method: string, path: string, opensTo: Kind[], body?: object): Door => ({
  surface,
  name: `${method} ${path}`,
  opensTo,
  async knock({ at }, secret) {
    const { status } = await ask(method, at(surface) + path, secret, body)
    return { status, isOpen: status < 300 }
  },
})

/** Routes that only read or extend a token come first, routes that end it last. */
const doors: Door[] = [
  {
    surface: 'auth',
    name: 'POST /validateToken',
    opensTo: ['session', 'fixed', 'guest'],
    async knock({ internal }, token) {
      const { status, body } = await ask('POST', `${internal}/validateToken`, serviceKey, { token })
      return { status, isOpen: body['authenticated'] === true }
    },
  },
  {
    surface: 'token-provider',
    name: 'GET /verify_token',
    opensTo: ['uuid'],
    async knock({ at }, secret) {
      const { status, body } = await ask('GET', `${at('token-provider')}/verify_token`, secret)
      return { status, isOpen: body['valid'] === true }
    },
  },
  {
    surface: 'token-manager',
    name: 'GET /app/valid/:token',
    opensTo: ['numbered'],
    async knock({ at }, secret) {
      const path = `/app/valid/${encodeURIComponent(secret) || '%20'}`
      const { status, body } = await ask('GET', at('token-manager') + path)
      return { status, isOpen: body['status'] === true }
    },
  },
  {
    surface: 'token-manager',
    name: 'POST /app/valid/token',
    opensTo: ['numbered'],
    async knock({ at }, token) {
      const { status, body } = await ask('POST', `${at('token-manager')}/app/valid/token`, null, { token })
      return { status, isOpen: body['status'] === true }
    },
  },
  {
    surface: 'flask-auth',
    name: 'GET /confirm/:token',
    opensTo: [],
    async knock({ at }, secret) {
      const { status } = await ask('GET', `${at('flask-auth')}/confirm/${encodeURIComponent(secret) || '%20'}`)
      return { status, isOpen: status < 300 }
    },
  },
  route('auth', 'GET', '/sessions', ['session']),
  route('flask-auth', 'GET', '/secret', ['session']),
  route('flask-auth', 'POST', '/token/refresh', ['refresh']),
  route('flask-auth', 'GET', '/users', []),
  route('flask-auth', 'DELETE', '/users', []),
  route('auth', 'POST', '/renew', ['session']),
  route('flask-jwt', 'GET', '/user', ['session']),
  route('flask-jwt', 'PUT', '/user', ['session'], {}),
  route('flask-jwt', 'POST', '/validate_token', ['session']),
  route('flask-auth', 'POST', '/logout/refresh', ['refresh']),
  route('flask-auth', 'POST', '/logout/access', ['session']),
  route('flask-jwt', 'POST', '/logout', ['session']),
]

/** The strings are sent unencoded, so they contain only characters that a header and JSON allow. */
function illFormed(good: string[]): string[] {
  const flip = (secret: string) => secret.slice(0, -1) + (secret.endsWith('0') ? '1' : '0')
  return [
    ...good.flatMap(secret => [flip(secret), secret.slice(0, -1), `${secret}0`, secret.slice(1), secret + secret]),
    drawSecret(drawTokenId(null, Date.now())),
    `123456:${drawSecret(drawTokenId(null, Date.now())).slice(3)}`,
    '6c84fb90-12c4-41e1-840d-725daeb3ddbd',
    '00000000-0000-0000-0000-000000000000',
    'a.b.c',
    'eyJhbGciOiJub25lIn0.eyJqdGkiOiIwMDAwMDAwMDAwMDAwMCJ9.',
    '__proto__',
    'null',
    'x',
    '..%2f',
    "'--",
    '=',
    'lk_',
    `lk_${'0'.repeat(63)}`,
    'A'.repeat(7000),
  ]
}

const pairs = dialectNames.flatMap((one, i) => dialectNames.slice(i + 1).map(other => [one, other] as const))

describe('two dialects at once', function () {
  this.slow(3000)
  afterEach(closeServers)

  async function open(pair: readonly DialectName[], env: Environment = {}, options = {}): Promise<Opened> {
    const DIALECTS = pair.map(name => `${name}:0`).join()
    const { service } = await openTestAuth({ env: { DIALECTS, ...env }, ...options })
    const addresses = await service.listen()
    return {
      surfaces: ['auth', ...pair],
      at: surface => addresses[surface === 'auth' ? 'auth' : listenerNameOf(surface)] as string,
      internal: addresses['authInternal'] as string,
    }
  }

  for (const pair of pairs) {
    describe(pair.join(' and '), () => {
      it('accept a token only for what it was issued for, and a refusal does not change it', async () => {
        const opened = await open(pair)
        const isHere = ({ surface }: { surface: Surface }) => opened.surfaces.includes(surface)
        for (const { name, kind, issue } of sources.filter(isHere)) {
          const secret = await issue(opened)
          const closed = doors.filter(isHere).filter(({ opensTo }) => !opensTo.includes(kind))
          for (const door of closed) {
            const { status, isOpen } = await door.knock(opened, secret)
            expect(isOpen, `${name} opens ${door.name} of ${door.surface}`).to.equal(false)
            expect(status, `${name} at ${door.name} of ${door.surface}`).to.be.below(500)
          }
          for (const door of doors.filter(isHere).filter(({ opensTo }) => opensTo.includes(kind))) {
            // Issue a new secret if the last use ended this one.
            const next = (await isLive(opened, secret, kind)) ? secret : await issue(opened)
            const { isOpen, status } = await door.knock(opened, next)
            expect(isOpen, `${name} at ${door.name} of ${door.surface} is ${status}`).to.equal(true)
          }
        }
      })

      it('refuse every malformed token without an internal error', async () => {
        const opened = await open(pair)
        const isHere = ({ surface }: { surface: Surface }) => opened.surfaces.includes(surface)
        const good = await Promise.all(sources.filter(isHere).map(({ issue }) => issue(opened)))
        for (const door of doors.filter(isHere)) {
          const knocks = illFormed(good).map(async secret => {
            const { status, isOpen } = await door.knock(opened, secret)
            const what = `${secret.slice(0, 80)} at ${door.name} of ${door.surface}`
            expect(isOpen, what).to.equal(false)
            expect(status, what).to.be.below(500)
          })
          await Promise.all(knocks)
        }
        for (const surface of opened.surfaces) {
          for (const value of [
            '',
            'Bearer',
            'Bearer ',
            'Bearer \xff\xfe',
            'Bearer a\tb',
            'Bearer a b',
            'bearer\ta',
            'Basic YTpi',
          ]) {
            for (const path of ['/sessions', '/verify_token', '/user', '/secret']) {
              const answer = await sendRaw(
                opened.at(surface),
                Buffer.from(
                  `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: ${value}\r\n\r\n`,
                  'latin1',
                ),
                5000,
              )
              expect(answer.text, `${JSON.stringify(value)} at ${path} of ${surface}`).to.match(/^HTTP\/1\.1 4\d\d /)
            }
          }
        }
      })

      it('count invalid tokens and wrong passwords together with Auth, and let valid tokens through', async () => {
        const { limitsPerAccount } = readAuthConfig({ SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey })
        const opened = await open(pair, { INVALID_TOKEN_LIMIT_PER_ADDRESS: '9' }, { limitsPerAccount })
        const sessionDoor: Record<Surface, string> = {
          auth: 'GET /sessions',
          'token-provider': 'GET /verify_token',
          'token-manager': 'POST /app/valid/token',
          'flask-jwt': 'GET /user',
          'flask-auth': 'GET /secret',
        }
        const doorOf = (surface: Surface) =>
          doors.find(door => door.surface === surface && door.name === sessionDoor[surface]) as Door
        const valid = new Map<Surface, string>()
        for (const surface of opened.surfaces) {
          valid.set(surface, await (sources.find(source => source.surface === surface) as Source).issue(opened))
        }
        const invalid: Partial<Record<Surface, string>> = { 'token-provider': '6c84fb90-12c4-41e1-840d-725daeb3ddbd' }
        const send = async (surface: Surface) =>
          (await doorOf(surface).knock(opened, invalid[surface] ?? 'not-one-of-the-tokens')).status
        for (let i = 0; i < 3; i++) {
          for (const surface of opened.surfaces) expect(await send(surface), surface).to.not.equal(429)
        }
        for (const surface of opened.surfaces) expect(await send(surface), surface).to.equal(429)
        for (const surface of opened.surfaces) {
          expect((await doorOf(surface).knock(opened, valid.get(surface) as string)).isOpen, surface).to.equal(true)
        }

        const guesses: [Surface, (password: string) => Promise<{ status: number }>][] = [
          [
            'auth',
            password => ask('POST', `${opened.at('auth')}/login`, null, { username: 'x@example.com', password }),
          ],
          [
            'flask-jwt',
            password =>
              ask('POST', `${opened.at('flask-jwt')}/authenticate_user`, null, { username: 'x@example.com', password }),
          ],
          [
            'flask-auth',
            password => ask('POST', `${opened.at('flask-auth')}/login`, null, { email: 'x@example.com', password }),
          ],
        ]
        const here = guesses.filter(([surface]) => opened.surfaces.includes(surface))
        const statuses: number[] = []
        for (let i = 0; i < 20 && !statuses.includes(429); i++) {
          const [, guess] = here[i % here.length] as (typeof here)[0]
          statuses.push((await guess(`CANARY guess number ${i}`)).status)
        }
        expect(statuses.at(-1)).to.equal(429)
        for (const [surface, guess] of here)
          expect((await guess('CANARY one more guess')).status, surface).to.equal(429)
      })
    })
  }

  it('count the tokens of guests together', async () => {
    const opened = await open(['token-provider', 'token-manager'], { GUEST_TOKEN_LIMIT_PER_ADDRESS: '6' })
    const generate = () => ask('POST', `${opened.at('token-provider')}/generate_token`, null, {})
    const create = () => ask('POST', `${opened.at('token-manager')}/app/token`, null, {})
    const statuses = []
    for (let i = 0; i < 4; i++) statuses.push((await generate()).status, (await create()).status)
    expect(statuses).to.deep.equal([200, 200, 200, 200, 200, 200, 429, 429])
  })
})

/** Tries the secret at the first door that it should open: that door changes the token least. */
async function isLive(opened: Opened, secret: string, kind: Kind): Promise<boolean> {
  const door = doors.find(({ surface, opensTo }) => opened.surfaces.includes(surface) && opensTo.includes(kind))
  return door !== undefined && (await door.knock(opened, secret)).isOpen
}
