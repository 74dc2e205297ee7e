// The servers that answer /data with different checks: Business itself, Business with another guard, bare Koa, and node:http.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { signTokens } from './jwt.ts'
import { withTokens } from './load.ts'
import {
  addAdmin,
  countVerdictCalls,
  logIn,
  type Running,
  start,
  startAuth,
  startBusiness,
  startBusinessWithCheck,
} from './processes.ts'
import { overHttp, type Row } from './rounds.ts'

const tokenCount = 64
const checks = [
  'no check',
  'batched',
  'one call per request',
  'fast-jwt HS256',
  'fast-jwt HS256, cached',
  'jose HS256',
  'jose EdDSA',
]
/** /admin/data, for which the user needs a role. */
const roleRow = 'Latchkey, requireRole'
export const rowNames = [
  'Latchkey',
  roleRow,
  // Business with batched calls is Latchkey.
  ...checks.filter(check => check !== 'batched'),
  'node:http, no check',
  ...checks.map(check => `bare Koa, ${check}`),
]

/** Starts the servers of these rows, with an Auth of their own if none is given. */
export async function openRows(names: string[], givenAuth?: Running): Promise<Row[]> {
  const auth = givenAuth ?? (await startAuth({ PASSWORD_HASH_COST: '4' })) // 64 log-ins take no time
  const tokens: string[] = []
  for (let i = 0; i < tokenCount; i++) tokens.push(await logIn(`${auth.addresses['auth']}`))
  const jwtSecret = randomBytes(32).toString('hex')
  const edKeys = generateKeyPairSync('ed25519')
  const hs256 = await signTokens(tokenCount, 'HS256', new TextEncoder().encode(jwtSecret))
  const edDsa = await signTokens(tokenCount, 'EdDSA', edKeys.privateKey)
  const keys = {
    JWT_SECRET: jwtSecret,
    JWT_PUBLIC_KEY: edKeys.publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  }

  const adminTokens: string[] = []
  if (names.includes(roleRow)) {
    const admin = await addAdmin(auth)
    for (let i = 0; i < tokenCount; i++) adminTokens.push(await logIn(`${auth.addresses['auth']}`, admin))
  }

  const tokensFor = (check: string) => (check.includes('EdDSA') ? edDsa : check.includes('HS256') ? hs256 : tokens)

  async function open(name: string): Promise<Row> {
    const [, FRAMEWORK, VARIANT = ''] = /^(?:(bare Koa|node:http), )?(.*)$/.exec(name) ?? []
    const asksAuth = ['Latchkey', roleRow, 'batched', 'one call per request'].includes(VARIANT)
    const env = { VARIANT, ...keys, ...(asksAuth && { AUTH_INTERNAL_URL: `${auth.addresses['authInternal']}` }) }
    let server: Running
    if (FRAMEWORK) server = await start('bench/bareServer.ts', { ...env, FRAMEWORK })
    else
      server = name === 'Latchkey' || name === roleRow ? await startBusiness(auth) : await startBusinessWithCheck(env)
    const asked =
      name === roleRow ? { path: '/admin/data', tokens: adminTokens } : { path: '/data', tokens: tokensFor(VARIANT) }
    return {
      ...overHttp(name, `${server.addresses['business']}${asked.path}`, withTokens(asked.tokens)),
      pids: () => (asksAuth ? [server.pid, auth.pid] : [server.pid]),
      ...(asksAuth && { authPid: auth.pid, counts: async () => ({ callsPerRequest: await countVerdictCalls(auth) }) }),
    }
  }

  const rows: Row[] = []
  for (const name of names) rows.push(await open(name))
  return rows
}
