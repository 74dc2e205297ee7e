// The examples of docs/protect-your-service.md that hold connections, as processes with the packed client and a real Auth: each
// connection ends within two seconds of its token.
import { once } from 'node:events'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { WebSocket } from 'ws'
import { type AuthApi, authApi } from '../support/authApi.ts'
import { ask } from '../support/client.ts'
import { createClock } from '../support/clock.ts'
import { type Example, killExamples, startExample } from '../support/exampleProcess.ts'
import { installClient, packClient } from '../support/packedClient.ts'
import { closeServers, startAuth } from '../support/servers.ts'
import { slackMs } from '../support/slack.ts'

const names = ['websocket', 'events', 'longPoll'] as const
type Name = (typeof names)[number]

/** A connection that the example holds open. */
interface Connection {
  /** Resolves to how the example ended it. */
  ended: Promise<string>
  close(): void
}

const parent = mkdtempSync(join(tmpdir(), 'latchkey-held-'))

describe('the examples of held connections', () => {
  const clock = createClock()
  const examples = {} as Record<Name, Example>
  let auth: Awaited<ReturnType<typeof startAuth>>
  let client: AuthApi
  let userId: string

  before(async function () {
    this.timeout(120_000)
    auth = await startAuth({ now: clock.now })
    client = authApi(auth)
    userId = (await client.admissionOf(await client.session())).userId as string
    const archive = packClient(join(parent, 'latchkey'))
    for (const name of names) {
      const folder = join(parent, name)
      installClient(folder, archive, name === 'websocket' ? ['ws'] : [])
      cpSync(`docs/examples/${name}.ts`, join(folder, 'server.ts'))
      examples[name] = await startExample(folder, auth.internalUrl)
    }
  })
  after(async () => {
    killExamples()
    await closeServers()
    rmSync(parent, { recursive: true })
  })

  async function openSocket(token: string): Promise<WebSocket> {
    const headers = token === '' ? {} : { token }
    const socket = new WebSocket(examples.websocket.url.replace('http', 'ws'), { headers })
    await once(socket, 'open')
    return socket
  }

  /** The status of a handshake that is refused. */
  async function refusalOf(token: string): Promise<number> {
    const error = await openSocket(token).catch((error: Error) => error)
    return Number(/Unexpected server response: (\d+)/.exec(String(error))?.[1])
  }

  /** A connection whose client answers nothing, not even that the connection is to be closed. */
  async function openDeafSocket(token: string) {
    const headers = { token, connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' }
    const key = { 'sec-websocket-key': Buffer.alloc(16).toString('base64') }
    const sent = get(examples.websocket.url, { headers: { ...headers, ...key }, agent: false })
    const [, socket] = (await once(sent, 'upgrade')) as [IncomingMessage, Socket]
    let received = ''
    socket.on('data', chunk => {
      received += chunk.toString('latin1')
    })
    socket.on('error', () => {})
    return { socket, received: () => received }
  }

  async function say(socket: WebSocket, text: string): Promise<string> {
    socket.send(text)
    const [message] = await once(socket, 'message')
    return String(message)
  }

  async function request(name: Name, token: string): Promise<{ answer: Promise<IncomingMessage>; close(): void }> {
    const sent = get(examples[name].url, { headers: { token }, agent: false })
    sent.on('error', () => {})
    return {
      answer: once(sent, 'response').then(([answer]) => answer as IncomingMessage),
      close: () => void sent.destroy(),
    }
  }

  async function textOf(answer: IncomingMessage): Promise<string> {
    let text = ''
    for await (const chunk of answer.setEncoding('utf8')) text += chunk
    return text
  }

  const open: Record<Name, (token: string) => Promise<Connection>> = {
    async websocket(token) {
      const socket = await openSocket(token)
      expect(await say(socket, 'hello')).to.equal('demo@example.com: hello')
      const ended = once(socket, 'close').then(([code, reason]) => `${code} ${reason}`)
      return { ended, close: () => socket.terminate() }
    },
    async events(token) {
      const { answer, close } = await request('events', token)
      const text = textOf(await answer)
      const ended = text.then(
        text => (text.includes('event: time\n') ? text.trim().split('\n\n').at(-1) : null) ?? text,
      )
      ended.catch(() => {})
      return { ended, close }
    },
    async longPoll(token) {
      const { answer, close } = await request('longPoll', token)
      const ended = answer.then(({ statusCode, headers }) => `${statusCode} ${headers['www-authenticate']}`)
      ended.catch(() => {})
      await sleep(100)
      return { ended, close }
    },
  }

  const expected: Record<Name, string> = {
    websocket: '4401 ended',
    events: 'event: end\ndata: {"reason":"ended"}',
    longPoll: '401 Bearer realm="latchkey", error="invalid_token"',
  }

  const endings: [what: string, end: (token: string) => Promise<unknown>][] = [
    ['logged out', token => client.post('/logout', token)],
    ['expired', async () => clock.advance(60_000)],
    ['ended with all sessions of its user', () => client.operate('DELETE', `/admin/users/${userId}/sessions`)],
  ]
  for (const name of names) {
    for (const [what, end] of endings) {
      it(`${name}.ts ends a connection within two seconds when its token is ${what}, and no other`, async () => {
        const { token } = await client.issue({ kind: 'sliding', ttlSeconds: 60, userId })
        const guest = await client.issue({ kind: 'fixed', ttlSeconds: 3600 })
        const bystander = await (name === 'websocket' ? openSocket(guest.token) : null)
        const connection = await open[name](token)
        await sleep(300) // into the second between two looks
        await end(token)
        const endedAt = performance.now()
        expect(await connection.ended).to.equal(expected[name])
        expect(performance.now() - endedAt).to.be.below(2000 + slackMs)
        if (bystander) expect(await say(bystander, 'here')).to.equal('guest: here')
        bystander?.terminate()
      })
    }

    it(`${name}.ts opens no connection without a live token`, async () => {
      const { token: revoked, tokenId } = await client.issue({ kind: 'fixed' })
      await client.operate('DELETE', `/tokens/${tokenId}`)
      for (const token of ['', 'unknown', revoked]) {
        const status =
          name === 'websocket' ? await refusalOf(token) : (await ask('GET', examples[name].url, token || null)).status
        expect(status, token).to.equal(401)
      }
    })
  }

  it('longPoll.ts delivers a message to everyone who waits', async () => {
    const { token } = await client.issue({ kind: 'sliding', ttlSeconds: 60, userId })
    const waiting = await Promise.all(Array.from({ length: 5 }, () => request('longPoll', token)))
    await sleep(300)
    expect((await ask('POST', examples.longPoll.url, token, 'hi')).status).to.equal(202)
    for (const { answer } of waiting) {
      const got = await answer
      expect([got.statusCode, await textOf(got)]).to.deep.equal([200, 'demo@example.com: hi'])
    }
  })

  it('websocket.ts answers no more and cuts off a client that does not close its side', async () => {
    const { token, tokenId } = await client.issue({ kind: 'fixed', ttlSeconds: 600 })
    const { socket, received } = await openDeafSocket(token)
    const message = Buffer.from([0x81, 0x81, 0, 0, 0, 0, 0x78]) // "x", RFC 6455 section 5.2
    const sending = setInterval(() => socket.write(message), 20)
    await sleep(300)
    await client.operate('DELETE', `/tokens/${tokenId}`)
    const endedAt = performance.now()
    await once(socket, 'close')
    clearInterval(sending)
    expect(performance.now() - endedAt).to.be.below(3000 + slackMs)
    const answer = '\x81\x08guest: x'
    const [answers = '', close = ''] = received().split('\x88')
    expect(answers.startsWith(answer.repeat(5))).to.equal(true)
    expect(close).to.equal('\x07\x11\x31ended') // 4401, and nothing after it
  })

  it('release their holds when clients leave, so that Auth gets no more calls', async () => {
    const { token } = await client.issue({ kind: 'sliding', ttlSeconds: 60, userId })
    const connections = await Promise.all(names.map(name => open[name](token)))
    for (const { close } of connections) close()
    await sleep(1500)
    const calls = () => auth.lines.filter(({ path }) => path === '/validateToken').length
    const before = calls()
    await sleep(2500)
    expect(calls()).to.equal(before)
  })

  for (const name of names) {
    it(`${name}.ts ends its connections on SIGTERM, and exits with 0`, async () => {
      const { token } = await client.issue({ kind: 'sliding', ttlSeconds: 60, userId })
      const connection = await open[name](token)
      const { process, ended, output } = examples[name]
      process.kill('SIGTERM')
      expect(await connection.ended).to.match(/^1001 |closed|^503 /)
      connection.close()
      expect(await ended, output()).to.equal(0)
      expect(output()).to.not.include(token)
    })
  }
})
