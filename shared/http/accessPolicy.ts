// Who may use a public listener: addresses, https, and the web origins of CORS.
import cors from '@koa/cors'
import type Koa from 'koa'
import { type Log, rateLimited } from '../log/log.ts'
import { addressGate, type TrustedProxies } from './address.ts'
import { AppError } from './errors.ts'
import type { PipelineContext } from './types.ts'

export interface AccessPolicy {
  /** The proxies whose X-Forwarded-For and X-Forwarded-Proto are believed. X-Forwarded-Host is always ignored. */
  trustedProxies: TrustedProxies
  /** Addresses and networks. If empty, every address that is not denied is allowed. */
  allowedAddresses: readonly string[]
  /** Takes precedence over `allowedAddresses`. */
  deniedAddresses: readonly string[]
  /** Refuse requests through a trusted proxy unless it received them over https or, if it does not say, forwards over TLS. */
  httpsOnly: boolean
  /** Origins whose pages may call the listener, compared exactly. */
  corsOrigins: readonly string[]
}

// Load balancers and probes call these paths from addresses that are on no list. The responses reveal nothing.
const openPaths = new Set(['/health', '/ready'])

const corsOptions = {
  allowMethods: 'GET, HEAD, POST, PATCH, DELETE',
  allowHeaders: 'Authorization, token, Content-Type, X-Request-Id',
  exposeHeaders: 'X-Request-Id, Retry-After, RateLimit, WWW-Authenticate, Server-Timing',
  maxAge: 600,
  keepHeadersOnError: false, // respondWithProblem keeps them
}

export interface AddressGateOptions {
  listener: string
  log: Log
  monotonicNow: () => number
}

/** Throws 403 if the address of the client is not allowed, except on the paths of probes. */
export function createAddressCheck(policy: AccessPolicy | null, { listener, log, monotonicNow }: AddressGateOptions) {
  const isAllowed = addressGate(policy?.allowedAddresses ?? [], policy?.deniedAddresses ?? [])
  const logRefusal = rateLimited(
    fields => log.warn('address_refused', { channel: 'security', listener, ...fields }),
    monotonicNow,
  )
  return function requireAllowedAddress(ctx: PipelineContext): void {
    const { requestId, address } = ctx.state
    if (isAllowed(address) || openPaths.has(ctx.path)) return
    logRefusal({ requestId, address })
    throw new AppError('forbidden', 'Requests from this address are not allowed.')
  }
}

/**
 * Throws 403 if a trusted proxy forwards a request that the client did not send over https, except on the paths of probes.
 * It does not redirect: the secrets of the request have already been sent in the clear, and a client that is redirected never
 * notices.
 */
export function createHttpsCheck(policy: AccessPolicy | null, isProxied: (ctx: PipelineContext) => boolean) {
  const httpsOnly = policy?.httpsOnly ?? false
  return function requireHttps(ctx: PipelineContext): void {
    if (!httpsOnly || ctx.state.isHttps || openPaths.has(ctx.path) || !isProxied(ctx)) return
    const isUnknown = ctx.req.headers['x-forwarded-proto'] === undefined
    const hint = isUnknown ? ' The proxy in front of this server does not send X-Forwarded-Proto.' : ''
    throw new AppError('forbidden', `Send requests over https.${hint}`)
  }
}

/** CORS for the origins of the policy; null if it has none. */
export function createCors(policy: AccessPolicy | null): Koa.Middleware | null {
  const origins = policy?.corsOrigins ?? []
  if (origins.length === 0) return null
  return cors({
    ...corsOptions,
    origin: ctx => (origins.includes(ctx.get('Origin')) ? ctx.get('Origin') : ''),
  })
}
