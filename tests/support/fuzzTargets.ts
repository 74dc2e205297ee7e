// Both services with all listeners, for the fuzzer: what can be sent to them, and what must hold afterwards.
import { randomBytes, randomUUID } from 'node:crypto'
import { openAuth } from '../../services/auth/app.ts'
import { readAuthConfig } from '../../services/auth/config.ts'
import { dialectNames } from '../../services/auth/dialects/index.ts'
import { describeAuth, describeAuthInternal } from '../../services/auth/routes/index.ts'
import { openBusiness } from '../../services/business/app.ts'
import { readBusinessConfig } from '../../services/business/config.ts'
import { describeBusiness, describeBusinessInternal } from '../../services/business/routes.ts'
import type { FuzzActor, FuzzOperation, FuzzTarget, Schema } from '../../tools/fuzz.ts'
import { post } from './client.ts'
import { unfollowed } from './clock.ts'
import { adminKey, demo, serviceKey } from './credentials.ts'
import { hashThreads } from './hashThreads.ts'
import { collectLog, type LogLine } from './log.ts'
import { testMode } from './processes.ts'
import { type Layout, startRealPair } from './realPair.ts'
import { wideAccountLimits } from './throttles.ts'

/** Without a mail server, mails are logged with their links. */
const isNoMail = ({ event }: LogLine) => event !== 'mail'

interface Document {
  paths: Record<string, Record<string, Operation>>
}

interface Operation {
  parameters?: { in: string; name: string }[]
  requestBody?: { content: Record<string, { schema: Schema }> }
}

function operationsOf(document: unknown): FuzzOperation[] {
  return Object.entries((document as Document).paths).flatMap(([path, methods]) => {
    return Object.entries(methods).map(([method, { parameters = [], requestBody }]) => {
      const bodies = Object.entries(requestBody?.content ?? {}).map(([type, { schema }]) => [type, schema])
      const query = parameters.filter(parameter => parameter.in === 'query').map(({ name }) => name)
      return { method: method.toUpperCase(), path, query, bodies: Object.fromEntries(bodies) }
    })
  })
}

const signingKey = { kty: 'oct', alg: 'HS256', kid: 'fuzz', k: randomBytes(32).toString('base64url') }

const text: Schema = { type: 'string' }
const ofDialects: Schema = { properties: { username: text, email: text, password: text, token: text } }

/** The operations of a dialect, which has no OpenAPI document: its routes, and all members that any of the routes reads. */
function operationsOfRoutes(routes: string[]): FuzzOperation[] {
  return routes.map(route => {
    const [method = '', path = ''] = route.replace(/:(\w+)/g, '{$1}').split(' ')
    const bodies = { 'application/json': ofDialects, 'application/x-www-form-urlencoded': ofDialects }
    return { method, path, query: [], bodies: /POST|PUT/.test(method) ? bodies : {} }
  })
}

export interface Targets {
  targets: FuzzTarget[]
  /** Logs in, with a new user if a fuzzed request has made log-in impossible for the last user. */
  logIn(): Promise<FuzzActor>
  /** Faults in the logs, and changes of `Object.prototype`. */
  problems(): string[]
  close(): Promise<void>
}

/** The users on whose behalf requests are sent. A new user replaces one who can no longer log in. */
function actors(authUrl: string) {
  let credentials = demo
  let running: Promise<FuzzActor> | null = null
  const tokens: string[] = []

  /** Concurrent calls share one log-in, because the fuzzed requests keep the hash threads busy. */
  function logIn(): Promise<FuzzActor> {
    running ??= tryToLogIn().finally(() => {
      running = null
    })
    return running
  }

  async function tryToLogIn(): Promise<FuzzActor> {
    const answer = await post(`${authUrl}/login`, credentials)
    const { token } = answer.body as { token?: string }
    if (token !== undefined) {
      tokens.push(token)
      return { ...credentials, tokens: [token, serviceKey, adminKey] }
    }
    if (answer.status !== 503) {
      credentials = { username: `${randomUUID()}@example.com`, password: 'CANARY phrase of some length' }
      const registered = await post(`${authUrl}/users`, credentials)
      if (![201, 503].includes(registered.status)) {
        throw new Error(`registration is ${registered.status}: ${registered.text}`)
      }
    }
    return tryToLogIn()
  }

  return { logIn, tokens }
}

const many = '1000000000'
const withoutLimits = {
  LOGIN_LIMIT_PER_ADDRESS: many,
  REGISTRATION_LIMIT_PER_ADDRESS: many,
  INVALID_TOKEN_LIMIT_PER_ADDRESS: many,
  MAIL_LIMIT_PER_ADDRESS: many,
  GUEST_TOKEN_LIMIT_PER_ADDRESS: many,
}

/** About one request in five hashes a password; with more such requests, nearly all would wait for hashes. */
function withFewHashes(operations: FuzzOperation[]): FuzzOperation[] {
  const cheap = operations.filter(({ bodies }) => !JSON.stringify(bodies).includes('"password"'))
  return [...operations, ...cheap, ...cheap, ...cheap, ...cheap]
}

/** Both services as ./startServer starts them. */
export async function openRealTargets(layout: Layout): Promise<Targets> {
  const dialects = { DIALECTS: dialectNames.map(name => `${name}:0`).join() }
  const pair = await startRealPair(layout, { ...withoutLimits, ...dialects, ACCESS_LOG: 'off' })
  const { business, businessInternal, auth, authInternal } = pair.urls
  const ofPublicAuth = withFewHashes(operationsOf(describeAuth()))
  const ofPublicBusiness = operationsOf(describeBusiness())
  const isSingle = layout === 'single address'
  const front = { url: business, operations: isSingle ? [...ofPublicBusiness, ...ofPublicAuth] : ofPublicBusiness }
  return {
    targets: [
      ...Array<FuzzTarget>(isSingle ? 5 : 1).fill(front), // a single address gets most requests
      { url: auth, operations: ofPublicAuth },
      { url: authInternal, operations: operationsOf(describeAuthInternal()) },
      { url: businessInternal, operations: operationsOf(describeBusinessInternal()) },
      ...pair.dialects.map(({ url, routes }) => ({ url, operations: withFewHashes(operationsOfRoutes(routes)) })),
    ],
    logIn: actors(isSingle ? business : auth).logIn,
    problems: pair.problems,
    close: pair.stop,
  }
}

export async function openTargets({ tokenFormat = 'opaque' } = {}): Promise<Targets> {
  const env = {
    ...testMode(), // at the usual cost of a hash few requests would get through
    SERVICE_KEY: serviceKey,
    ADMIN_KEY: adminKey,
    AUTH_PORT: '0',
    AUTH_INTERNAL_PORT: '0',
    BUSINESS_PORT: '0',
    BUSINESS_INTERNAL_PORT: '0',
    ...withoutLimits,
    TOKEN_FORMAT: tokenFormat,
    ...(tokenFormat === 'jwt' && { TOKEN_KEYS: JSON.stringify({ keys: [signingKey] }) }),
    DIALECTS: dialectNames.map(name => `${name}:0`).join(),
  }
  const [authLog, businessLog] = [collectLog('auth'), collectLog('business')]
  const time = { monotonicNow: () => performance.now() }
  const config = { ...readAuthConfig(env), limitsPerAccount: wideAccountLimits }
  const auth = await openAuth(config, { log: authLog.log, clock: unfollowed(Date.now), hashThreads, ...time })
  const { auth: authUrl = '', authInternal = '' } = await auth.listen()
  const businessConfig = readBusinessConfig({ ...env, AUTH_INTERNAL_URL: authInternal })
  const business = await openBusiness(businessConfig, { log: businessLog.log, ...time })
  const { business: businessUrl = '', businessInternal = '' } = await business.listen()
  const { logIn, tokens } = actors(authUrl)
  return {
    targets: [
      { url: authUrl, operations: operationsOf(describeAuth()) },
      { url: authInternal, operations: operationsOf(describeAuthInternal()) },
      { url: businessUrl, operations: operationsOf(describeBusiness()) },
      { url: businessInternal, operations: operationsOf(describeBusinessInternal()) },
      ...authLog.lines
        .filter(({ event }) => event === 'dialect_opened')
        .map(({ address, routes }) => ({ url: String(address), operations: operationsOfRoutes(routes as string[]) })),
    ],
    logIn,
    problems() {
      const failed = [...authLog.lines, ...businessLog.lines].filter(
        ({ level, event }) => level === 'error' || event === 'uncaughtException',
      )
      const polluted = [...Object.keys(Object.prototype), ...(({} as { x?: unknown }).x === undefined ? [] : ['x'])]
      const log = JSON.stringify([authLog.lines, businessLog.lines].map(lines => lines.filter(isNoMail)))
      const secrets = tokens.some(token => log.includes(token)) ? ['a token is in the log'] : []
      return [
        ...failed.map(line => JSON.stringify(line)),
        ...polluted.map(name => `Object.prototype has ${name}`),
        ...secrets,
      ]
    },
    async close() {
      await business.close()
      await auth.close()
    },
  }
}
