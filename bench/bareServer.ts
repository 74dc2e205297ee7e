// /data behind the check that VARIANT names, in the smallest possible server: of Koa, or of node:http if FRAMEWORK says so.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import Koa from 'koa'
import { check } from './checks.ts'

const greeting = (username: string) => ({ data: `Hello, ${username}!` })

const app = new Koa()
app.use(async ctx => {
  ctx.body = greeting(await check(ctx.get('authorization').slice(7)))
})

const plain = createServer(async (request, response) => {
  const body = JSON.stringify(greeting(await check(`${request.headers.authorization?.slice(7)}`)))
  const headers = { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': Buffer.byteLength(body) }
  response.writeHead(200, headers).end(body)
})

const server = process.env['FRAMEWORK'] === 'node:http' ? plain : createServer(app.callback())
server.listen(0, '127.0.0.1', () => {
  const business = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  process.send?.({ type: 'ready', addresses: { business } })
})
process.on('disconnect', () => process.exit())
