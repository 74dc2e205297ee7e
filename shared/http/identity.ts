// Identifies a request: its id, its trace, the address of the client, and whether the client used TLS.
import { randomUUID } from 'node:crypto'
import { isRequestId, isTraceparent } from '../../packages/client/requestIdentity.ts'
import { clientAddress, proxyTest, type TrustedProxies } from './address.ts'
import { peerOf } from './connections.ts'
import type { PipelineContext } from './types.ts'

export interface IdentityOptions {
  trustedProxies: TrustedProxies
  /** Whether the listener itself speaks TLS. */
  hasTls: boolean
}

export function createIdentity({ trustedProxies, hasTls }: IdentityOptions) {
  const isTrustedProxy = proxyTest(trustedProxies)

  /** Whether the request came through a trusted proxy. */
  function isProxied({ req }: PipelineContext): boolean {
    return isTrustedProxy(peerOf(req.socket), 0)
  }

  function identifyRequest({ req, state }: PipelineContext): void {
    const { headers } = req
    const peer = peerOf(req.socket)
    const given = headers['x-request-id']
    const { traceparent } = headers
    const forwardedProto = isTrustedProxy(peer, 0) ? lastOf(headers['x-forwarded-proto']) : null
    state.requestId = isRequestId(given) ? given : randomUUID()
    state.address = clientAddress(peer, headers['x-forwarded-for'] as string | undefined, isTrustedProxy)
    state.isHttps = forwardedProto === null ? hasTls : forwardedProto === 'https'
    if (isTraceparent(traceparent)) state.traceparent = traceparent
  }

  return { identifyRequest, isProxied }
}

/** The value that the nearest proxy added; null if there is none. */
function lastOf(header: string | string[] | undefined): string | null {
  return header === undefined ? null : (String(header).split(',').at(-1) as string).trim().toLowerCase()
}
