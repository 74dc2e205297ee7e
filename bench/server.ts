// A server under test: /data behind the check that VARIANT names, in our own server or in bare Koa.
import { createPublicKey } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import { createVerifier } from 'fast-jwt'
import { jwtVerify } from 'jose'
import Koa from 'koa'
import { openAuthClient } from '../packages/client/authClient.ts'
import { invalidToken, readBearerToken } from '../packages/client/bearer.ts'
import { createListener } from '../shared/http/listener.ts'
import type { Handler } from '../shared/http/types.ts'
import { createLog } from '../shared/log/log.ts'
import { openOutput } from '../shared/log/output.ts'

const { VARIANT = '', CHASSIS, AUTH_INTERNAL_URL = '', SERVICE_KEY = '' } = process.env
const { JWT_SECRET = '', JWT_PUBLIC_KEY = '' } = process.env
// `all` writes the log to stdout, as the services do.
const accessLog = process.env['ACCESS_LOG'] === 'all' ? 'all' : 'errors'
const level = accessLog === 'all' ? 'info' : 'warn'
const log = createLog({ service: 'bench', level, stream: openOutput(process.stdout) })
const monotonicNow = () => performance.now()

/** Resolves to the owner of the token; rejects if the token is invalid. */
type Check = (token: string) => Promise<string> | string

function createCheck(variant: string): Check {
  const claims = { allowedIss: 'latchkey', allowedAud: 'business', requiredClaims: ['sub', 'exp'] }
  const jose = { issuer: 'latchkey', audience: 'business', requiredClaims: ['sub', 'exp'] }
  switch (variant) {
    case 'no check':
      return () => 'demo@example.com'
    case 'batched':
    case 'one call per request': {
      const single = variant === 'batched' ? {} : { maxBatch: 1, maxCalls: 1000 }
      const auth = openAuthClient({ url: AUTH_INTERNAL_URL, key: SERVICE_KEY, log, monotonicNow, ...single })
      return async token => {
        const { verdict } = await auth.validate(token, { requestId: 'bench' })
        if (!verdict.authenticated) throw invalidToken()
        return String(verdict.username)
      }
    }
    case 'fast-jwt HS256':
    case 'fast-jwt HS256, cached': {
      const cache = variant.endsWith('cached')
      const verify = createVerifier({ key: JWT_SECRET, algorithms: ['HS256'], cache, ...claims })
      return token => (verify(token) as { username: string }).username
    }
    case 'jose HS256': {
      const key = new TextEncoder().encode(JWT_SECRET)
      return async token =>
        String((await jwtVerify(token, key, { algorithms: ['HS256'], ...jose })).payload['username'])
    }
    case 'jose EdDSA': {
      const key = createPublicKey(JWT_PUBLIC_KEY)
      return async token =>
        String((await jwtVerify(token, key, { algorithms: ['EdDSA'], ...jose })).payload['username'])
    }
    default:
      throw new Error(`there is no variant ${variant}`)
  }
}

const check = createCheck(VARIANT)
const url = CHASSIS === 'bare' ? await listenBare() : await listenInChassis()
process.send?.({ type: 'ready', addresses: { business: url } })
process.on('disconnect', () => process.exit())

function listenBare(): Promise<string> {
  const app = new Koa()
  app.use(async ctx => {
    const username = await check(ctx.get('authorization').slice(7))
    ctx.body = { data: `Hello, ${username}!` }
  })
  return new Promise(resolve => {
    const server = app.listen(0, '127.0.0.1', () => {
      resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    })
  })
}

function listenInChassis(): Promise<string> {
  const requireToken: Handler = async (ctx, next) => {
    ctx.state['username'] = await check(readBearerToken(ctx.req))
    await next()
  }
  const data: Handler = ctx => {
    ctx.body = { data: `Hello, ${ctx.state['username']}!` }
  }
  const handlers = [requireToken, data]
  const options = { name: 'bench', portSetting: 'PORT', log, accessLog, monotonicNow } as const
  return createListener({ 'GET /data': handlers }, options).listen(0, '127.0.0.1')
}
