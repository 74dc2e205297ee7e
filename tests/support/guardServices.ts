// The same service in every framework: routes behind guards, each alone and behind `requireToken`.
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serve } from '@hono/node-server'
import Router from '@koa/router'
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'
import Koa from 'koa'
import type { Admission } from '../../packages/client/contract.ts'
import { latchkey as forExpress } from '../../packages/client/express.ts'
import { latchkey as forFastify } from '../../packages/client/fastify.ts'
import { latchkey as forHono } from '../../packages/client/hono.ts'
import { latchkey, TokenError } from '../../packages/client/index.ts'
import { latchkey as forKoa } from '../../packages/client/koa.ts'
import { latchkey as forNode } from '../../packages/client/node.ts'
import type { LatchkeyOptions } from '../../packages/client/options.ts'
import type { ShadowRule } from '../../packages/client/shadowRules.ts'

export interface GuardService {
  url: string
  shadowRules: () => ShadowRule[]
  close: () => Promise<unknown>
}

/**
 * `/role` and `/scope`: one guard alone. `/behind`: both behind `requireToken`. `/shadow`: a rule that only counts. Each answers with
 * members of the admission.
 */
type Start = (options: LatchkeyOptions) => Promise<GuardService>

/** What a route shows of the admission that its framework gives it. */
const shown = ({ userId, roles, scope, keyName, actor }: Admission) => ({ userId, roles, scope, keyName, actor })

async function listening(server: Server): Promise<string> {
  if (!server.listening) await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function serviceOf(
  server: Server,
  auth: { shadowRules: () => ShadowRule[]; close: () => Promise<void> },
): Promise<GuardService> {
  const close = async () => {
    server.closeAllConnections()
    server.close()
    await auth.close()
  }
  return { url: await listening(server), shadowRules: auth.shadowRules, close }
}

export const services: Record<string, Start> = {
  async koa(options) {
    const auth = forKoa(options)
    const router = new Router()
    const show: Koa.Middleware = ctx => {
      ctx.body = shown(ctx.state['auth'])
    }
    router.get('/role', auth.requireRole('admin'), show)
    router.get('/scope', auth.requireScope(['orders:read', 'orders:write']), show)
    router.get('/behind', auth.requireToken(), auth.requireRole('admin'), auth.requireScope('orders:write'), show)
    router.get('/shadow', auth.requireScope('orders:write', { shadow: true }), show)
    return serviceOf(new Koa().use(router.routes()).listen(0, '127.0.0.1'), auth)
  },

  async express(options) {
    const auth = forExpress(options)
    const app = express()
    const show: express.RequestHandler = (req, res) => void res.json(shown(req.auth))
    app.get('/role', auth.requireRole('admin'), show)
    app.get('/scope', auth.requireScope(['orders:read', 'orders:write']), show)
    app.get('/behind', auth.requireToken(), auth.requireRole('admin'), auth.requireScope('orders:write'), show)
    app.get('/shadow', auth.requireScope('orders:write', { shadow: true }), show)
    return serviceOf(app.listen(0, '127.0.0.1'), auth)
  },

  async fastify(options) {
    const auth = forFastify(options)
    const app = fastify({ genReqId: request => String(request.headers['x-request-id'] ?? 'none') })
    const show = async ({ auth }: { auth: Admission }) => shown(auth)
    app.get('/role', { onRequest: auth.requireRole('admin') }, show)
    app.get('/scope', { onRequest: auth.requireScope(['orders:read', 'orders:write']) }, show)
    const three = [auth.requireToken(), auth.requireRole('admin'), auth.requireScope('orders:write')]
    app.get('/behind', { onRequest: three }, show)
    app.get('/shadow', { onRequest: auth.requireScope('orders:write', { shadow: true }) }, show)
    await app.listen({ port: 0, host: '127.0.0.1' })
    return serviceOf(app.server, auth)
  },

  async hono(options) {
    const auth = forHono(options)
    const app = new Hono()
    app.get('/role', auth.requireRole('admin'), c => c.json(shown(c.var.auth)))
    app.get('/scope', auth.requireScope(['orders:read', 'orders:write']), c => c.json(shown(c.var.auth)))
    const three = [auth.requireToken(), auth.requireRole('admin'), auth.requireScope('orders:write')] as const
    app.get('/behind', ...three, c => c.json(shown(c.var.auth)))
    const shadow = auth.requireScope('orders:write', { shadow: true })
    app.get('/shadow', shadow, c => c.json(shown(c.var.auth)))
    return serviceOf(serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }) as Server, auth)
  },

  async node(options) {
    const auth = forNode(options)
    const show = (req: { auth: Admission }, res: ServerResponse) => void res.end(JSON.stringify(shown(req.auth)))
    const handlers: Record<string, (req: IncomingMessage, res: ServerResponse) => Promise<void>> = {
      '/role': auth.requireRole('admin', show),
      '/scope': auth.requireScope(['orders:read', 'orders:write'], show),
      '/behind': auth.requireToken(auth.requireRole('admin', auth.requireScope('orders:write', show))),
      '/shadow': auth.requireScope('orders:write', show, { shadow: true }),
    }
    return serviceOf(
      createServer((req, res) => void handlers[req.url as string]?.(req, res)).listen(0, '127.0.0.1'),
      auth,
    )
  },

  async none(options) {
    const auth = latchkey(options)
    const [role, scope] = [auth.requireRole('admin'), auth.requireScope('orders:write')]
    const shadow = auth.requireScope('orders:write', { shadow: true })
    const both = auth.requireScope(['orders:read', 'orders:write'])
    const guards: Record<string, typeof role> = {
      '/role': role,
      '/scope': both,
      '/behind': async req => scope(req, await role(req, await auth.authenticate(req))),
      '/shadow': shadow,
    }
    const server = createServer((req, res) => {
      guards[req.url as string]?.(req).then(
        admission => res.end(JSON.stringify(shown(admission))),
        (error: unknown) => {
          if (!(error instanceof TokenError)) throw error
          const { status, headers, code, message } = error
          res.writeHead(status, headers).end(JSON.stringify({ error: code, detail: message }))
        },
      )
    })
    return serviceOf(server.listen(0, '127.0.0.1'), auth)
  },
}
