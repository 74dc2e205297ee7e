// The peers of npm run bench:peers: how each is started, how a client gets and revokes a session, and which processes take
// part. bench/peers/ has their servers.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { postgresUrl } from '../tests/support/stores.ts'
import { startNginx, startRedis } from './ownServers.ts'
import {
  logIn,
  type Running,
  scratchFolder,
  serviceKey,
  start,
  startAuth,
  startBusiness,
  withChildren,
} from './processes.ts'

type Headers = Record<string, string>

export interface Peer {
  /** Of the protected resource. */
  url: string
  /** Resolves to the headers of a request with a new session. */
  logIn(): Promise<Headers>
  /** Revokes the session of these headers; null if the peer cannot. */
  logOut: ((headers: Headers) => Promise<void>) | null
  /** How long a revoked session may be accepted by a setting of the peer, if longer than until the next request. */
  setting: string | null
  pids: () => number[] | Promise<number[]>
}

const json = { 'content-type': 'application/json' }
const form = { 'content-type': 'application/x-www-form-urlencoded' }
const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

/** Rejects unless the answer is 2xx. */
async function post(url: string, headers: Headers, body?: string): Promise<Response> {
  const answer = await fetch(url, { method: 'POST', headers, body: body ?? null })
  if (!answer.ok) throw new Error(`POST ${url} was answered ${answer.status} ${await answer.text()}`)
  return answer
}

const cookiesOf = (answer: Response) => ({
  cookie: answer.headers
    .getSetCookie()
    .map(cookie => cookie.split(';')[0])
    .join('; '),
})

async function logInForToken(url: string): Promise<Headers> {
  return bearer(((await (await post(`${url}/login`, {})).json()) as { token: string }).token)
}

const freshFile = () => join(scratchFolder(), 'peer.db')

/** Starts a server in bench/peers. */
const startPeer = (file: string, env: Record<string, string> = {}) =>
  start(`bench/peers/${file}.ts`, { NODE_ENV: 'production', ...env })

let sharedAuth: Promise<Running> | null = null
const auth = () => {
  sharedAuth ??= startAuth({ PASSWORD_HASH_COST: '4' })
  return sharedAuth
}

/** A service that asks Auth. */
async function behindAuth(url: string, pids: number[]): Promise<Peer> {
  const { addresses, pid } = await auth()
  return {
    url: `${url}/data`,
    logIn: async () => bearer(await logIn(`${addresses['auth']}`)),
    async logOut(headers) {
      await post(`${addresses['auth']}/logout`, headers)
    },
    setting: null,
    pids: () => [...pids, pid],
  }
}

async function openLatchkey(): Promise<Peer> {
  const business = await startBusiness(await auth())
  return behindAuth(`${business.addresses['business']}`, [business.pid])
}

async function openLatchkeyInExpress(): Promise<Peer> {
  const AUTH_INTERNAL_URL = `${(await auth()).addresses['authInternal']}`
  const server = await startPeer('latchkey', { AUTH_INTERNAL_URL, SERVICE_KEY: serviceKey })
  return behindAuth(`${server.addresses['business']}`, [server.pid])
}

/** The configuration in deploy/proxies, with this bench's addresses. */
async function openNginx(): Promise<Peer> {
  const { addresses } = await auth()
  const service = await startPeer('unchecked')
  const hostOf = (url: string | undefined) => new URL(`${url}`).host
  const { url, pid } = await startNginx(port =>
    readFileSync('deploy/proxies/nginx.conf', 'utf8')
      .replace('listen 8080', `listen 127.0.0.1:${port}`)
      .replaceAll('127.0.0.1:9000', hostOf(service.addresses['business']))
      .replaceAll('127.0.0.1:3101', hostOf(addresses['authInternal'])),
  )
  return behindAuth(url, [...withChildren(pid), service.pid])
}

async function openUnchecked(): Promise<Peer> {
  const server = await startPeer('unchecked')
  return {
    url: `${server.addresses['business']}/data`,
    logIn: async () => ({}),
    logOut: null,
    setting: 'no sessions',
    pids: () => [server.pid],
  }
}

async function openJwt(): Promise<Peer> {
  const server = await startPeer('jwt')
  const url = `${server.addresses['business']}`
  return {
    url: `${url}/data`,
    logIn: () => logInForToken(url),
    logOut: null,
    setting: 'cannot be revoked; by its setting it expires after 900 s',
    pids: () => [server.pid],
  }
}

async function openBetterAuth(COOKIE_CACHE: 'on' | 'off'): Promise<Peer> {
  const server = await startPeer('betterAuth', { COOKIE_CACHE, DATABASE_FILE: freshFile() })
  const url = `${server.addresses['business']}`
  const headers = { ...json, origin: 'http://127.0.0.1' }
  const credentials = { email: 'demo@example.com', password: 'a bright new phrase 77' }
  await post(`${url}/api/auth/sign-up/email`, headers, JSON.stringify({ ...credentials, name: 'demo' }))
  return {
    url: `${url}/data`,
    logIn: async () => cookiesOf(await post(`${url}/api/auth/sign-in/email`, headers, JSON.stringify(credentials))),
    async logOut(cookies) {
      await post(`${url}/api/auth/sign-out`, { ...headers, ...cookies }, '{}')
    },
    setting: COOKIE_CACHE === 'on' ? '300 s, until the cookie cache expires' : null,
    pids: () => [server.pid],
  }
}

async function openExpressSession(): Promise<Peer> {
  const redis = await startRedis()
  const server = await startPeer('expressSession', { REDIS_URL: redis.url })
  const url = `${server.addresses['business']}`
  return {
    url: `${url}/data`,
    logIn: async () => cookiesOf(await post(`${url}/login`, {})),
    async logOut(cookies) {
      await post(`${url}/logout`, cookies)
    },
    setting: null,
    pids: () => [server.pid, redis.pid],
  }
}

async function openSessionTable(
  env: Record<string, string>,
  databasePids: () => Promise<number[]> | number[],
): Promise<Peer> {
  const server = await startPeer('sessionTable', env)
  const url = `${server.addresses['business']}`
  return {
    url: `${url}/data`,
    logIn: () => logInForToken(url),
    async logOut(headers) {
      await post(`${url}/logout`, headers)
    },
    setting: null,
    pids: async () => [server.pid, ...(await databasePids())],
  }
}

/** A schema of its own in the PostgreSQL of the tests, whose server must run on this machine: its processes are counted. */
async function openPostgresTable(): Promise<Peer> {
  const client = new pg.Client({ connectionString: postgresUrl })
  await client.connect()
  const schema = `latchkey_bench_${process.pid}`
  await client.query(`create schema ${schema}`)
  atEnd.push(async () => {
    await client.query(`drop schema ${schema} cascade`)
    await client.end()
  })
  const DATABASE_URL = `${postgresUrl}?options=${encodeURIComponent(`-c search_path=${schema}`)}`
  return openSessionTable({ DATABASE_URL }, async () => {
    const { rows } = await client.query(
      "select pid from pg_stat_activity where application_name = 'latchkey-bench-peer'",
    )
    return rows.map(({ pid }: { pid: number }) => pid)
  })
}

async function openIntrospection(): Promise<Peer> {
  const client = { CLIENT_ID: 'bench', CLIENT_SECRET: 'bench-secret-0123456789abcdefghijklmnopqrstuv' }
  const provider = await startPeer('oidcProvider', client)
  const PROVIDER_URL = `${provider.addresses['business']}`
  const service = await startPeer('introspection', { PROVIDER_URL, ...client })
  const credentials = Buffer.from(`${client.CLIENT_ID}:${client.CLIENT_SECRET}`).toString('base64')
  const headers = { ...form, authorization: `Basic ${credentials}` }
  return {
    url: `${service.addresses['business']}/data`,
    async logIn() {
      const answer = await post(`${PROVIDER_URL}/token`, headers, 'grant_type=client_credentials')
      return bearer(((await answer.json()) as { access_token: string }).access_token)
    },
    async logOut({ authorization = '' }) {
      await post(`${PROVIDER_URL}/token/revocation`, headers, `token=${authorization.slice(7)}`)
    },
    setting: null,
    pids: () => [service.pid, provider.pid],
  }
}

/** What to do when all is measured. */
export const atEnd: (() => Promise<void>)[] = []

export const peers: Record<string, () => Promise<Peer>> = {
  Latchkey: openLatchkey,
  'Latchkey, in Express': openLatchkeyInExpress,
  'nginx auth_request, Latchkey': openNginx,
  'Express, no check': openUnchecked,
  'JWT, fast-jwt HS256': openJwt,
  'Better Auth getSession': () => openBetterAuth('off'),
  'Better Auth getSession, cookie cache': () => openBetterAuth('on'),
  'express-session, Redis': openExpressSession,
  'session table, SQLite': () => openSessionTable({ DATABASE_FILE: freshFile() }, () => []),
  'session table, PostgreSQL': openPostgresTable,
  'oidc-provider introspection': openIntrospection,
}
