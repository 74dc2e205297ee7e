// GET /events: what the stream emits about tokens, and that a slow reader delays no request.
import { type IncomingMessage, request } from 'node:http'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import type { Admission } from '../../../packages/client/contract.ts'
import { createEventStream } from '../../../services/auth/observability/eventStream.ts'
import { ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import { logIn, validate } from '../../support/factories.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { until } from '../../support/until.ts'

interface Told {
  name: string
  data: Record<string, unknown>
}

const parse = (text: string): Told[] =>
  [...text.matchAll(/^event: (.*)\ndata: (.*)\n\n/gm)].map(([, name = '', data = '']) => ({
    name,
    data: JSON.parse(data),
  }))

/** On a connection of its own. */
async function listen(internalUrl: string, key = adminKey) {
  let text = ''
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const sent = request(`${internalUrl}/events`, { agent: false, headers: { authorization: `Bearer ${key}` } }, resolve)
  sent.on('error', reject)
  sent.end()
  const answer = await promise
  answer.on('data', chunk => {
    text += chunk
  })
  answer.on('error', () => {})
  const events = () => parse(text)
  const receives = (name: string, data: Record<string, unknown> = {}) =>
    until(() =>
      events().find(
        told => told.name === name && Object.entries(data).every(([key, value]) => told.data[key] === value),
      ),
    ).catch(() => expect.fail(`no ${name} ${JSON.stringify(data)} in ${text}`))
  return { answer, text: () => text, events, receives, close: () => sent.destroy() }
}

const idOf = (token: string) => token.slice(3, 17)

describe('the event stream', () => {
  const clock = createClock()
  let auth: Awaited<ReturnType<typeof startAuth>>

  before(async () => {
    auth = await startAuth({ now: clock.now })
  })
  after(closeServers)

  it('requires the admin key and is on the internal listener only', async () => {
    for (const key of [serviceKey, 'x', null]) {
      expect((await ask('GET', `${auth.internalUrl}/events`, key)).status).to.equal(401)
    }
    expect((await ask('GET', `${auth.url}/events`, adminKey)).status).to.equal(404)
    const head = await ask('HEAD', `${auth.internalUrl}/events`, adminKey)
    expect([head.status, head.headers.get('content-type')]).to.deep.equal([200, 'text/event-stream; charset=utf-8'])
  })

  it('emits log-ins, and each token that is issued, slides, is refused with the reason, ends, expires or is swept', async () => {
    const { receives, text, answer, close } = await listen(auth.internalUrl)
    expect(answer.headers['content-type']).to.equal('text/event-stream; charset=utf-8')
    expect(answer.headers['cache-control']).to.equal('no-store')
    await receives('hello', { at: clock.now(), frameMs: 100 })
    const token = await logIn(auth.url)
    const tokenId = idOf(token)
    const expiresAt = clock.now() + 30_000
    await receives('login_succeeded')
    const { data } = await receives('issued', { tokenId, kind: 'sliding', purpose: null, expiresAt, count: 1 })
    const { userId } = data
    await validate(auth.internalUrl, { token })
    await receives('slid', { tokenId, userId, expiresAt })

    const other = await logIn(auth.url)
    await ask('POST', `${auth.url}/logout`, other)
    await receives('revoked', { tokenId: idOf(other), userId })
    await validate(auth.internalUrl, { token: other })
    await receives('refused', { tokenId: idOf(other), reason: 'revoked' })

    const { body } = await ask<{ token: string }>('POST', `${auth.internalUrl}/tokens`, adminKey, {
      kind: 'single-use',
      ttlSeconds: 60,
    })
    await validate(auth.internalUrl, { token: body.token })
    await receives('consumed', { tokenId: idOf(body.token) })

    clock.advance(30_000)
    await receives('expired', { tokenId, userId, expiresAt })
    await validate(auth.internalUrl, { token })
    await receives('refused', { tokenId, reason: 'expired' })
    await ask('DELETE', `${auth.internalUrl}/tokens/expired`, adminKey)
    await receives('swept', { removed: 1 })
    await ask('POST', `${auth.url}/login`, null, { ...demo, username: 'my secret word' })
    await receives('login_failed', { reason: 'unknown_user' })
    for (const secret of [token, other, body.token, 'my secret word', demo.username, demo.password]) {
      expect(text()).to.not.include(secret)
    }
    close()
  })

  it('emits what the operator changes about a user and a token, once it holds', async () => {
    const { receives, events, close } = await listen(auth.internalUrl)
    const token = await logIn(auth.url)
    const { tokenId, userId } = (await validate<Admission>(auth.internalUrl, { token })).body
    const patch = (path: string, change: object) => ask('PATCH', `${auth.internalUrl}${path}`, adminKey, change)
    await patch(`/admin/users/${userId}`, { roles: ['admin'] })
    const { data } = await receives('roles_changed', { userId })
    expect(data['roles']).to.deep.equal(['admin'])
    await patch(`/tokens/${tokenId}`, { scope: 'orders:read', paused: true })
    await receives('changed', { tokenId, userId, scope: 'orders:read', paused: true })
    await validate(auth.internalUrl, { token })
    await receives('refused', { tokenId, reason: 'paused' })
    await patch(`/admin/users/${userId}`, { paused: true })
    await receives('user_paused', { userId })
    await patch(`/admin/users/${userId}`, { paused: false, roles: [] })
    await receives('user_resumed', { userId })
    expect(events().filter(({ name }) => name === 'roles_changed')).to.have.length(2)
    const terms = { kind: 'fixed', ttlSeconds: 60, scope: 'kiosk' }
    const issued = await ask<{ tokenId: string }>('POST', `${auth.internalUrl}/tokens`, adminKey, terms)
    await receives('issued', { tokenId: issued.body.tokenId, scope: 'kiosk' })
    close()
  })

  it('emits each use of a canary with its name, and how often it was used, but not its secret', async () => {
    const { receives, text, close } = await listen(auth.internalUrl)
    const session = await logIn(auth.url)
    const canary = { name: 'in the old backup', canary: true }
    const { body } = await ask<{ id: string; secret: string }>('POST', `${auth.url}/keys`, session, canary)
    for (const useCount of [1, 2]) {
      await validate(auth.internalUrl, { token: body.secret })
      await receives('canary_used', { tokenId: body.id, name: canary.name, useCount })
    }
    await receives('refused', { tokenId: body.id, reason: 'other_purpose' })
    expect(text()).to.not.include(body.secret)
    close()
  })

  it('emits the expiry of a renewed session at its new end, not at the previous one', async () => {
    const { receives, events, close } = await listen(auth.internalUrl)
    const token = await logIn(auth.url)
    const tokenId = idOf(token)
    const { userId } = (await receives('issued', { tokenId })).data
    clock.advance(20_000)
    const expiresAt = clock.now() + 30_000
    await ask('POST', `${auth.url}/renew`, token)
    await receives('renewed', { tokenId, userId, expiresAt })
    clock.advance(10_000)
    const later = await logIn(auth.url)
    await receives('issued', { tokenId: idOf(later) }) // an `expired` at the session's previous end would arrive before this `issued`
    const expired = () => events().filter(({ name, data }) => name === 'expired' && data['tokenId'] === tokenId)
    expect(expired()).to.deep.equal([])
    clock.advance(20_000)
    await receives('expired', { tokenId, userId, expiresAt })
    expect(expired()).to.have.length(1)
    close()
  })

  it('emits which session a password change keeps, and later its expiry', async () => {
    const username = 'keeper@example.com'
    const [password, another] = ['violet tractor humming gravel', 'rusty spoon beneath a lighthouse']
    await ask('POST', `${auth.url}/users`, null, { username, password })
    const { receives, events, close } = await listen(auth.internalUrl)
    const [kept, ended] = [await logIn(auth.url, { username, password }), await logIn(auth.url, { username, password })]
    const { userId } = (await receives('issued', { tokenId: idOf(ended) })).data
    const change = { currentPassword: password, password: another }
    expect((await ask('PATCH', `${auth.url}/users/me`, kept, change)).status).to.equal(200)
    await receives('sessions_revoked', { userId, keep: idOf(kept) })
    clock.advance(30_000)
    await receives('expired', { tokenId: idOf(kept), userId })
    expect(events().some(({ name, data }) => name === 'expired' && data['tokenId'] === idOf(ended))).to.equal(false)
    await ask('DELETE', `${auth.internalUrl}/admin/users/${userId}/sessions`, adminKey)
    await receives('sessions_revoked', { userId, keep: null })
    close()
  })

  it('counts repeated events: a frame has one event for each token', async () => {
    const token = await logIn(auth.url)
    const { receives, events, close } = await listen(auth.internalUrl)
    await validate(auth.internalUrl, { tokens: Array.from({ length: 200 }, () => token) })
    await receives('slid', { tokenId: idOf(token) })
    const slid = () => events().filter(({ name }) => name === 'slid')
    await until(() => slid().reduce((sum, { data }) => sum + Number(data['count']), 0) === 200)
    expect(slid()).to.have.length.below(3) // the 200 uses may be split between two frames
    close()
  })

  it('serves sixteen readers, and another when one disconnects', async () => {
    const readers = await Promise.all(Array.from({ length: 16 }, () => listen(auth.internalUrl)))
    const late = await listen(auth.internalUrl)
    expect([late.answer.statusCode, late.answer.headers['retry-after']]).to.deep.equal([503, '1'])
    readers[0]?.close()
    const again = await until(async () => {
      const reader = await listen(auth.internalUrl)
      return reader.answer.statusCode === 200 && reader
    })
    for (const reader of [...readers, again]) reader.close()
  })

  it('ends when Auth closes, without a delay', async () => {
    const another = await startAuth()
    const { answer } = await listen(another.internalUrl)
    const ended = new Promise(resolve => answer.once('end', resolve))
    const startedAt = performance.now()
    await Promise.all([another.service.close(), ended])
    expect(performance.now() - startedAt).to.be.below(2500) // a connection that stays open would take 5 s
  })
})

describe('the event stream, alone', () => {
  const slid = (id: number) =>
    ({
      type: 'slid',
      tokenId: `token-${id}`,
      userId: 'user',
      kind: 'sliding',
      expiresAt: 2_000_000,
      isConsumed: false,
    }) as const
  const opened: Readable[] = []
  afterEach(() => {
    for (const reader of opened.splice(0)) reader.destroy()
  })

  function open(options: Partial<Parameters<typeof createEventStream>[0]> = {}) {
    const stream = createEventStream({ now: () => 1_000_000, ...options })
    const reader = stream.open() as Readable
    opened.push(reader)
    return { stream, reader }
  }

  it('costs nothing without a reader: it does not even read the clock', () => {
    const asksNothing = () => {
      throw new Error('the clock was read')
    }
    const { publish } = createEventStream({ now: asksNothing })
    for (const event of [slid(1), { type: 'swept', removed: 1, durationMs: 1 } as const]) publish(event)
  })

  it('orders the repeated events of a frame by their last occurrence', async () => {
    const { stream, reader } = open()
    const ended = { type: 'sessions_revoked', userId: 'user', keep: null } as const
    for (const event of [ended, slid(1), ended]) stream.publish(event)
    let text = ''
    reader.on('data', chunk => {
      text += chunk
    })
    const told = await until(() => text.includes('sessions_revoked') && parse(text).map(({ name }) => name))
    expect(told.slice(-2)).to.deep.equal(['slid', 'sessions_revoked'])
  })

  it('has at most 500 different events in a frame, and counts the dropped ones', async () => {
    const { stream, reader } = open()
    for (let id = 0; id < 600; id++) stream.publish(slid(id))
    let text = ''
    reader.on('data', chunk => {
      text += chunk
    })
    await until(() => text.includes('event: dropped'))
    expect(parse(text).filter(({ name }) => name === 'slid')).to.have.length(500)
    expect(parse(text).find(({ name }) => name === 'dropped')?.data).to.deep.equal({ count: 100 })
  })

  it('buffers 256 KB for a slow reader, drops whole frames beyond that, and reports how many events it dropped', async () => {
    const { stream, reader } = open()
    let heard = 0
    for (let frame = 0; frame < 7; frame++) {
      for (let id = 0; id < 400; id++) stream.publish(slid(id))
      heard += 400
      const before = reader.readableLength
      const isFull = () => reader.readableLength > 200_000
      await until(() => reader.readableLength > before || isFull())
      if (isFull()) await sleep(120) // a dropped frame adds no bytes, so wait as long as one frame takes
      expect(reader.readableLength).to.be.below(256 * 1024)
    }
    let text = ''
    reader.on('data', chunk => {
      text += chunk
    })
    await sleep(0)
    stream.publish(slid(0))
    await until(() => text.includes('event: dropped'))
    const counts = (name: string) =>
      parse(text)
        .filter(told => told.name === name)
        .reduce((sum, { data }) => sum + Number(data['count']), 0)
    expect(counts('dropped')).to.be.above(0)
    expect(counts('dropped') + counts('slid')).to.equal(heard + 1)
  })

  it('sends what happened since the last frame when Auth closes', async () => {
    const { stream, reader } = open()
    stream.publish(slid(1))
    stream.close()
    const text = (await reader.setEncoding('utf8').toArray()).join('')
    expect(parse(text).map(({ name }) => name)).to.deep.equal(['hello', 'slid'])
  })

  it('emits no expiry of a token that was revoked or consumed before', async () => {
    let at = 1_000_000
    const { stream, reader } = open({ now: () => at })
    const [revoked, expired] = [slid(1), slid(3)]
    const consumed = { ...slid(2), isConsumed: true }
    for (const { tokenId, userId, expiresAt, kind } of [revoked, consumed, expired]) {
      stream.publish({
        type: 'issued',
        tokenId,
        userId,
        kind,
        purpose: null,
        expiresAt,
        scope: null,
        name: null,
        parentId: null,
      })
    }
    stream.publish({ ...revoked, type: 'revoked' })
    stream.publish(consumed)
    at = expired.expiresAt
    stream.close()
    const text = (await reader.setEncoding('utf8').toArray()).join('')
    const ends = parse(text).filter(({ name }) => name === 'expired')
    expect(ends.map(({ data }) => data['tokenId'])).to.deep.equal([expired.tokenId])
  })

  it('sends a heartbeat while nothing happens, so that the connection does not look dead', async () => {
    const { reader } = open({ heartbeatMs: 200 })
    let text = ''
    reader.on('data', chunk => {
      text += chunk
    })
    await until(() => text.endsWith('\n\n:\n\n'))
  })
})
