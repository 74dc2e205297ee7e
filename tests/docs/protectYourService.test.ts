// docs/protect-your-service.md followed step by step: the client is packed and installed in empty folders, the examples run
// there as processes with a real Auth, and their answers are compared with those of Business.
import { execFile, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, existsSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { openAuthClient } from '../../packages/client/authClient.ts'
import { ask } from '../support/client.ts'
import { createClock } from '../support/clock.ts'
import { adminKey, serviceKey } from '../support/credentials.ts'
import { type Example, killExamples, startExample } from '../support/exampleProcess.ts'
import { logIn } from '../support/factories.ts'
import { type FakeAuth, hold, startFakeAuth } from '../support/fakeAuth.ts'
import { collectLog } from '../support/log.ts'
import { type Framework, frameworks, installClient, packagesOf, packClient } from '../support/packedClient.ts'
import { sendRaw } from '../support/raw.ts'
import { closeServers, startAuth, startBusiness } from '../support/servers.ts'

const text = readFileSync('docs/protect-your-service.md', 'utf8')
const blocks = [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, code]) => ({ language, code }))
/** How the document packs and installs the client. */
const commands = blocks[0]?.code ?? ''

const parent = mkdtempSync(join(tmpdir(), 'latchkey-protect-'))
const folderOf = (name: string) => join(parent, `my ${name}`)

/**
 * Everything that a client can observe of GET /data with these header lines, except the request id, which is checked
 * here, and `type` and `title`: the problems of Business have types with pages of their own.
 */
async function look(url: string, lines: string[]) {
  const request = ['GET /data HTTP/1.1', 'Host: x', 'Connection: close', ...lines].join('\r\n')
  const { status, headers, body } = await sendRaw(url, `${request}\r\n\r\n`, 3000)
  const { requestId, type, title, ...members } = JSON.parse(body) as Record<string, unknown>
  if (type === 'about:blank') expect(title).to.equal(STATUS_CODES[status])
  expect(headers.get('x-request-id')).to.match(/^([0-9a-f-]{36}|req-\w+)$/) // Fastify counts its requests
  if (status !== 200) expect(requestId).to.equal(headers.get('x-request-id'))
  expect(headers.get('x-powered-by')).to.equal(null)
  return {
    status,
    type: headers.get('content-type')?.split(';')[0],
    challenge: headers.get('www-authenticate'),
    retryAfter: headers.get('retry-after'),
    cacheControl: headers.get('cache-control'),
    members,
  }
}

describe('docs/protect-your-service.md', () => {
  const clock = createClock()
  const examples = {} as Record<Framework, Example>
  let auth: Awaited<ReturnType<typeof startAuth>>
  let business: Awaited<ReturnType<typeof startBusiness>>
  let dead: string
  let revoked: string
  let good: string
  let fake: FakeAuth

  const issue = async (body: Record<string, unknown>) => {
    const answer = await ask<{ token: string }>('POST', `${auth.internalUrl}/tokens`, adminKey, body)
    expect(answer.status, answer.text).to.equal(201)
    return answer.body.token
  }
  const callsToAuth = () => auth.lines.filter(({ path }) => path === '/validateToken').length

  before(async () => {
    const [pack, install] = commands.split('\n')
    expect(install).to.match(/^npm install .*latchkey-client-.*\.tgz/)
    const archive = packClient(join(parent, 'latchkey'), pack)
    for (const name of frameworks) {
      installClient(folderOf(name), archive, packagesOf[name])
      cpSync(`docs/examples/${name}.ts`, join(folderOf(name), 'server.ts'))
    }
    fake = await startFakeAuth()
    auth = await startAuth({ now: clock.now })
    business = await startBusiness(auth.internalUrl)
    const start = async (name: Framework) => {
      examples[name] = await startExample(folderOf(name), auth.internalUrl)
    }
    await Promise.all(frameworks.map(start))
    dead = await logIn(auth.url)
    clock.advance(30_000)
    revoked = await logIn(auth.url)
    expect((await ask('POST', `${auth.url}/logout`, revoked)).status).to.equal(204)
    good = await logIn(auth.url)
  })

  after(async () => {
    killExamples()
    await Promise.all([closeServers(), fake.stop()])
    rmSync(parent, { recursive: true })
  })

  describe('the document', () => {
    it('links every example, and shows curl.sh unchanged', () => {
      const linked = [...text.matchAll(/\(examples\/([^)]+)\)/g)].map(([, file]) => file)
      expect(readdirSync('docs/examples')).to.have.members([...linked, 'curl.sh', 'otel.mjs'])
      expect(blocks.map(({ code }) => code)).to.include(readFileSync('docs/examples/curl.sh', 'utf8'))
    })

    it('shows examples of less than 60 lines', () => {
      for (const file of globSync('docs/examples/*')) {
        expect(readFileSync(file, 'utf8').split('\n').length, file).to.be.below(61)
      }
    })
  })

  describe('the client', () => {
    it('gets verdicts under any request id', async () => {
      const { log, lines } = collectLog('client')
      const monotonicNow = () => performance.now()
      const client = openAuthClient({ url: auth.internalUrl, key: serviceKey, log, monotonicNow })
      for (const requestId of ['', 'req-1', 'x'.repeat(500), 'a b;c,d', 'ü\u{1f511}', 'a\r\nb: c', '"\t\0']) {
        expect((await client.validate(good, { requestId })).verdict.authenticated, requestId).to.equal(true)
      }
      await client.close()
      expect(lines).to.deep.equal([])
    })
  })

  for (const name of frameworks) {
    describe(`${name}.ts`, () => {
      /** Returns Business's answer after checking that the example's is the same. */
      async function expectSame(lines: string[], linesForBusiness = lines) {
        const expected = await look(business.url, linesForBusiness)
        expect(await look(examples[name].url, lines)).to.deep.equal(expected)
        return expected
      }

      it('serves a token that Auth admits, in either header form', async () => {
        for (const line of [`Authorization: Bearer ${good}`, `authorization: bearer ${good}`, `Token: ${good}`]) {
          const { status, members } = await expectSame([line])
          expect(status).to.equal(200)
          expect(members).to.deep.equal({ data: 'Hello, demo@example.com!' })
        }
      })

      it('greets a guest', async () => {
        const guest = await issue({ kind: 'fixed', ttlSeconds: 60 })
        expect((await expectSame([`Token: ${guest}`])).members).to.deep.equal({ data: 'Hello, guest!' })
      })

      it('is 401 like Business without a token', async () => {
        for (const lines of [[], ['Authorization: Basic Z29vZDpnb29k'], [`Cookie: token=${good}`]]) {
          const { status, challenge } = await expectSame(lines)
          expect(status).to.equal(401)
          expect(challenge).to.equal('Bearer realm="latchkey"')
        }
      })

      it('is 401 like Business for a malformed, an unknown, a dead and a revoked token', async () => {
        for (const token of ['go od', '%', 'x'.repeat(3000), 'unknown', dead, revoked]) {
          const { status, challenge, retryAfter } = await expectSame([`Authorization: Bearer ${token}`])
          expect(status, token).to.equal(401)
          expect(challenge).to.equal('Bearer realm="latchkey", error="invalid_token"')
          expect(retryAfter).to.equal(null)
        }
      })

      it('is 400 like Business for two tokens', async () => {
        const [bearer, token] = [`Authorization: Bearer ${good}`, `Token: ${good}`]
        for (const lines of [
          [bearer, token],
          [bearer, bearer],
          [token, token],
        ]) {
          expect((await expectSame(lines)).status).to.equal(400)
        }
      })

      it('requires a token even for a path that does not exist', async () => {
        expect(
          (await sendRaw(examples[name].url, 'GET /no HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')).status,
        ).to.equal(401)
      })

      it('is 401 on the next request after a token is revoked', async () => {
        const token = await logIn(auth.url)
        expect((await look(examples[name].url, [`Token: ${token}`])).status).to.equal(200)
        await ask('POST', `${auth.url}/logout`, token)
        expect((await look(examples[name].url, [`Token: ${token}`])).status).to.equal(401)
      })

      it('extends a sliding token with each request', async () => {
        const token = await logIn(auth.url)
        for (let i = 0; i < 3; i++) {
          clock.advance(20_000)
          expect((await look(examples[name].url, [`Token: ${token}`])).status).to.equal(200)
        }
        good = await logIn(auth.url)
      })

      it('admits a single-use token for one of ten requests at once', async () => {
        const token = await issue({ kind: 'single-use', ttlSeconds: 60 })
        const answers = await Promise.all(
          Array.from({ length: 10 }, () => look(examples[name].url, [`Token: ${token}`])),
        )
        expect(answers.map(({ status }) => status).sort()).to.deep.equal([200, ...Array(9).fill(401)])
      })

      it('admits no token that has a purpose', async () => {
        const token = await issue({ kind: 'fixed', ttlSeconds: 60, purpose: 'download' })
        expect((await expectSame([`Token: ${token}`])).status).to.equal(401)
      })

      it('shares few calls among 50 requests at once', async () => {
        const { url } = examples[name]
        const get = async () => (await fetch(`${url}/data`, { headers: { token: good } })).status
        const getTogether = () => Promise.all(Array.from({ length: 50 }, get))
        await getTogether() // opens the connections before the measurement
        const before = callsToAuth()
        expect(await getTogether()).to.deep.equal(Array(50).fill(200))
        expect(callsToAuth() - before).to.be.within(1, 20)
      })

      it('answers requests in flight on SIGTERM, and exits with 0', async () => {
        fake.reset()
        fake.behave(hold)
        const { process, url, ended, output } = await startExample(folderOf(name), fake.url)
        const underWay = fetch(`${url}/data`, { headers: { token: 'good' } }) // its connection is kept alive
        await fake.called(1)
        process.kill('SIGTERM')
        while (await accepts(url)) await sleep(10)
        fake.calls[0]?.reply()
        const answer = await underWay
        expect(answer.status).to.equal(200)
        expect(await answer.json()).to.deep.equal({ data: 'Hello, good!' })
        const answeredAt = performance.now()
        expect(await ended, output()).to.equal(0)
        expect(performance.now() - answeredAt).to.be.below(2000)
      })

      it('does not start without a service key', async () => {
        const { status, stderr } = spawnSync(process.execPath, ['server.ts'], {
          cwd: folderOf(name),
          env: { PORT: '0' },
          encoding: 'utf8',
        })
        expect(status).to.equal(1)
        expect(stderr).to.include('the service key is missing. Pass { key }, or set SERVICE_KEY')
      })
    })
  }

  describe('curl.sh', () => {
    const hasCurl = spawnSync('curl', ['--version']).error === undefined
    const run = (token: string, env: Record<string, string> = {}) =>
      new Promise<{ code: unknown; stdout: string }>(resolve => {
        const given = {
          PATH: process.env['PATH'],
          SERVICE_KEY: serviceKey,
          AUTH_INTERNAL_URL: auth.internalUrl,
          ...env,
        }
        const child = execFile('docs/examples/curl.sh', { env: given }, (error, stdout) =>
          resolve({ code: error === null ? 0 : error.code, stdout }),
        )
        child.stdin?.on('error', () => {}) // the process can end before it has read its input
        child.stdin?.end(token)
      })
    const codeOf = async (token: string, env?: Record<string, string>) => (await run(token, env)).code

    before(function () {
      if (!hasCurl) this.skip()
    })

    it('exits with 0 for a token that Auth admits, and prints the verdict', async () => {
      for (const end of ['', '\n']) {
        const { code, stdout } = await run(good + end)
        expect(code).to.equal(0)
        expect(JSON.parse(stdout)).to.include({ authenticated: true, username: 'demo@example.com' })
      }
    })

    it('exits with 1 for every other token', async () => {
      const before = callsToAuth()
      for (const token of [dead, revoked, 'unknown']) expect(await codeOf(token), token).to.equal(1)
      expect(callsToAuth() - before).to.equal(3)
    })

    it('exits with 1 for a malformed token, without a call to Auth', async () => {
      const before = callsToAuth()
      const injected = `x","touch":false,"purpose":"p`
      for (const token of ['', ' ', injected, `${good}"`, '$(id)', '`id`', '\\', 'a b', `\n${good}`]) {
        expect(await codeOf(token), token).to.equal(1)
      }
      expect(callsToAuth()).to.equal(before)
    })

    it('exits with 2 without a verdict', async () => {
      expect(await codeOf(good, { SERVICE_KEY: '' })).to.equal(2)
      expect(await codeOf(good, { SERVICE_KEY: `${serviceKey}x` })).to.equal(2)
      expect(await codeOf(good, { AUTH_INTERNAL_URL: 'http://127.0.0.1:1' })).to.equal(2)
      expect(await codeOf(good, { AUTH_INTERNAL_URL: auth.url })).to.equal(2) // the public listener
      expect(await codeOf(good, { PATH: '/nonexistent' })).to.not.equal(0)
    })

    it('exits with 2 for every answer but a 200 with a verdict, and follows no redirect', async () => {
      const admission = '{"authenticated":true,"tokenId":"x"}'
      let answer = { status: 200, body: admission }
      const paths: string[] = []
      const nonsense = await startNonsense((path, res) => {
        paths.push(path)
        res.writeHead(answer.status, { location: '/elsewhere' }).end(answer.body)
      })
      const env = { AUTH_INTERNAL_URL: nonsense.url }
      expect(await codeOf(good, env)).to.equal(0)
      for (const status of [201, 202, 301, 302, 307, 308, 401, 403, 404, 500, 503]) {
        answer = { status, body: admission }
        expect(await codeOf(good, env), String(status)).to.equal(2)
      }
      for (const body of [
        '',
        'true',
        '{}',
        '{"authenticated":"true"}',
        '{"authenticated":1}',
        `[${admission}]`,
        '200',
      ]) {
        answer = { status: 200, body }
        expect(await codeOf(good, env), body).to.equal(2)
      }
      answer = { status: 500, body: `${admission}\n200` }
      expect(await codeOf(good, env)).to.equal(2)
      expect(new Set(paths)).to.deep.equal(new Set(['/validateToken']))
      nonsense.server.close()
    })

    it('exits with 2 in time if Auth does not answer, and uses no proxy', async () => {
      let asked = 0
      const silent = await startNonsense(() => asked++)
      const startedAt = performance.now()
      expect(await codeOf(good, { AUTH_INTERNAL_URL: silent.url })).to.equal(2)
      expect(performance.now() - startedAt).to.be.below(2000)
      expect(asked).to.equal(1)
      expect(await codeOf(good, { http_proxy: silent.url, all_proxy: silent.url })).to.equal(0)
      expect(asked).to.equal(1)
      silent.server.closeAllConnections()
      silent.server.close()
    })

    it('shows neither the key nor the token in the process list', async function () {
      if (!existsSync('/proc/self/cmdline')) this.skip()
      let seen: string[] = []
      const looking = await startNonsense((_path, res) => {
        const lines = globSync('/proc/[0-9]*/cmdline').map(readOrEmpty)
        seen = lines.filter(line => line.startsWith('curl\0') || line.includes('curl.sh'))
        res.end()
      })
      await codeOf(good, { AUTH_INTERNAL_URL: looking.url })
      looking.server.close()
      expect(seen.length).to.be.at.least(2)
      expect(seen.join()).to.not.include(serviceKey).and.not.include(good)
    })
  })

  describe('while Auth is down', () => {
    before(() => auth.service.close())

    for (const name of frameworks) {
      it(`${name}.ts is 503 with Retry-After like Business, never 401, and still refuses a malformed token`, async () => {
        const lines = [`Token: ${good}`]
        const expected = await look(business.url, lines)
        expect(expected.status).to.equal(503)
        expect(expected.retryAfter).to.match(/^[1-9]\d*$/)
        expect(expected.challenge).to.equal(null)
        for (const token of [good, dead, revoked]) {
          expect(await look(examples[name].url, [`Token: ${token}`])).to.deep.equal(expected)
        }
        expect((await look(examples[name].url, [])).status).to.equal(401)
      })
    }

    it('curl.sh exits with 2', async function () {
      if (spawnSync('curl', ['--version']).error !== undefined) this.skip()
      const env = { ...process.env, SERVICE_KEY: serviceKey, AUTH_INTERNAL_URL: auth.internalUrl }
      expect(spawnSync('docs/examples/curl.sh', { env, input: good }).status).to.equal(2)
    })

    it('all serve again once Auth is back', async () => {
      const { port } = new URL(auth.internalUrl)
      const again = await startAuth({ env: { AUTH_INTERNAL_PORT: port } })
      const token = await logIn(again.url)
      for (const name of frameworks) {
        expect((await look(examples[name].url, [`Token: ${token}`])).status, name).to.equal(200)
      }
    })

    for (const name of frameworks) {
      it(`${name}.ts has logged the outage once, and neither a token nor a key`, () => {
        const output = examples[name].output()
        expect(output.match(/auth_unavailable/g)).to.have.lengthOf(1)
        expect(output.match(/auth_recovered/g)).to.have.lengthOf(1)
        for (const secret of [good, dead, revoked, serviceKey]) expect(output).to.not.include(secret)
      })
    }
  })
})

function accepts(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url)
  return new Promise(resolve => {
    const socket = connect(Number(port), hostname)
    socket.on('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })
}

type Respond = (path: string, res: ServerResponse) => void

async function startNonsense(respond: Respond): Promise<{ server: Server; url: string }> {
  const server = createServer((req, res) => {
    req.resume()
    req.on('end', () => respond(req.url ?? '', res))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
}

/** Returns '' if the process has ended since it was listed. */
function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}
