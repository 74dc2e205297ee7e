// The Python client: it passes the conformance vectors, and its examples answer as Business does, with a real Auth.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { globSync, readFileSync } from 'node:fs'
import { STATUS_CODES } from 'node:http'
import { expect } from 'chai'
import { type ClientProcess, openClientProcess } from '../../tools/conformance/clientProcess.ts'
import { openVectorRunner, type VectorRunner } from '../../tools/conformance/runVector.ts'
import { loadVectors, type Vector } from '../../tools/conformance/vectors.ts'
import { ask } from '../support/client.ts'
import { createClock } from '../support/clock.ts'
import { adminKey, serviceKey } from '../support/credentials.ts'
import { logIn } from '../support/factories.ts'
import { type FakeAuth, hold, startFakeAuth } from '../support/fakeAuth.ts'
import { freePort } from '../support/freePort.ts'
import { findPython, pythonEnv } from '../support/python.ts'
import { sendRaw } from '../support/raw.ts'
import { closeServers, startAuth, startBusiness } from '../support/servers.ts'
import { slackMs } from '../support/slack.ts'
import { until } from '../support/until.ts'

const folder = 'packages/client-python'
const python = findPython()

/** In WSGI, requests of several threads have no order, and headers of the same name arrive joined with a comma. */
const notInWsgi = [
  'a token with a comma is 401',
  'Authorization twice, without a token',
  'a verdict that is unavailable',
  'one malformed verdict is 503 for every request',
  'fewer verdicts than tokens are 503',
  'a token that is refused is 401, not 403',
  'requests that share a call are each held',
]

/** The other files are played to a client with a longer deadline, so that a busy machine does not make it 503. */
const aboutTime = ['answers', 'deadlines']

function skipWithout(found: string | undefined, context: Mocha.Context, what: string): asserts found is string {
  if (found !== undefined) return
  console.log(`  not tested: ${what}`)
  context.skip()
}

describe('the Python client', () => {
  before(function () {
    skipWithout(python, this, 'packages/client-python, because there is no Python 3.11 or newer')
  })

  it('compiles without a warning, in lines of at most 120 characters', () => {
    const { status, stdout, stderr } = spawnSync(
      python as string,
      ['-W', 'error', '-m', 'compileall', '-q', '-f', folder],
      { env: pythonEnv, encoding: 'utf8' },
    )
    expect([status, stdout, stderr]).to.deep.equal([0, '', ''])
    for (const file of globSync(`${folder}/**/*.py`)) {
      const long = readFileSync(file, 'utf8')
        .split('\n')
        .filter(line => line.length > 120 || /\s$|\t/.test(line))
      expect(long, file).to.deep.equal([])
    }
  })

  it('has the licence of the project', () => {
    expect(readFileSync(`${folder}/LICENSE`, 'utf8')).to.equal(readFileSync('LICENSE', 'utf8'))
  })

  it('imports nothing but the standard library', () => {
    const imported = globSync(`${folder}/latchkey_client/*.py`).flatMap(file =>
      [...readFileSync(file, 'utf8').matchAll(/^\s*(?:from|import) (\w+)/gm)].map(([, name]) => name as string),
    )
    const names = JSON.parse(
      execFileSync(python as string, ['-c', 'import json, sys; print(json.dumps(list(sys.stdlib_module_names)))'], {
        encoding: 'utf8',
      }),
    )
    expect(names).to.include.members(imported)
  })

  it('passes its own tests', () => {
    const args = ['-W', 'error', '-m', 'unittest', 'discover', `${folder}/tests`]
    const { status, stderr } = spawnSync(python as string, args, { env: pythonEnv, encoding: 'utf8' })
    expect(status, stderr).to.equal(0)
    expect(stderr).to.match(/^Ran \d\d tests/m)
  })

  for (const [what, args, chosen] of [
    ['ASGI', [], () => true],
    [
      'WSGI',
      ['--wsgi'],
      (file: string, { title }: Vector) =>
        ['requests', 'rules', 'verdicts'].includes(file) && !notInWsgi.some(beginning => title.startsWith(beginning)),
    ],
  ] as const) {
    describe(`behind ${what}`, () => {
      let runner: VectorRunner
      let client: ClientProcess
      let patient: ClientProcess

      before(async () => {
        runner = await openVectorRunner({ key: serviceKey, slackMs })
        const open = (...more: string[]) =>
          openClientProcess(python as string, [`${folder}/conformance.py`, ...args, ...more], pythonEnv)
        client = open()
        patient = open('--patient')
      })

      for (const [file, vectors] of loadVectors()) {
        for (const vector of vectors.filter(vector => chosen(file, vector))) {
          it(`obeys ${file}.json: ${vector.title}`, async () => {
            const isAboutTime = aboutTime.includes(file)
            expect(await runner.run(vector, isAboutTime ? client : patient)).to.deep.equal([])
          })
        }
      }

      after(async () => {
        if (client === undefined) return
        const codes = [await client.close(), await patient.close()]
        await runner.close()
        const log = client.errors() + patient.errors()
        expect(codes, log).to.deep.equal([0, 0])
        expect(log).not.to.match(/Traceback|good-|never retrieved/)
        expect(log).not.to.include(serviceKey)
      })
    })
  }
})

/**
 * What a client can observe of GET /data with these header lines, except the request id, which is checked here, and the type of a
 * problem with its title: a service with the client has no pages for them, so they are those of RFC 9457, section 4.2.1.
 */
async function look(url: string, lines: string[]) {
  const request = ['GET /data HTTP/1.1', 'Host: x', 'Connection: close', ...lines].join('\r\n')
  const { status, headers, body } = await sendRaw(url, `${request}\r\n\r\n`, 5000)
  const { requestId, type, title, ...members } = JSON.parse(body) as Record<string, unknown>
  if (status !== 200) expect([`/problems/${members['error']}`, 'about:blank']).to.include(type)
  if (type === 'about:blank') expect(title).to.equal(STATUS_CODES[status])
  expect(headers.get('x-request-id')).to.match(/^\s*[0-9a-f-]{36}$/)
  if (status !== 200) expect(requestId).to.equal(headers.get('x-request-id')?.trim())
  const header = (name: string) => headers.get(name)?.trim() ?? null
  return {
    status,
    type: header('content-type')?.split(';')[0],
    challenge: header('www-authenticate'),
    retryAfter: header('retry-after'),
    cacheControl: header('cache-control'),
    hasTiming: /^auth;dur=/.test(header('server-timing') ?? ''),
    members,
  }
}

const running = new Set<ChildProcess>()

interface Example {
  modules: string[]
  args(port: number): string[]
}

const examples: Record<string, Example> = {
  starlette: {
    modules: ['starlette', 'uvicorn', 'wsproto'],
    args: port => ['-m', 'uvicorn', '--app-dir', `${folder}/examples`, '--port', String(port), 'starlette_app:app'],
  },
  flask: {
    modules: ['flask'],
    args: port => ['-m', 'flask', '--app', `${folder}/examples/flask_app.py`, 'run', '--port', String(port)],
  },
}

/** Starts the example and waits until it answers. */
async function startExample(path: string, { args }: Example, authUrl: string) {
  const port = await freePort()
  const env = { ...pythonEnv, SERVICE_KEY: serviceKey, AUTH_INTERNAL_URL: authUrl }
  const child = spawn(path, args(port), { env, stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', chunk => {
      output += chunk
    })
  }
  const url = `http://127.0.0.1:${port}`
  await until(() => {
    if (child.exitCode !== null) throw new Error(output)
    return fetch(url).catch(() => null)
  })
  return { url, child, output: () => output }
}

for (const [name, example] of Object.entries(examples)) {
  describe(`the Python example for ${name}`, () => {
    const clock = createClock()
    const found = findPython(...example.modules)
    let auth: Awaited<ReturnType<typeof startAuth>>
    let business: Awaited<ReturnType<typeof startBusiness>>
    let fake: FakeAuth
    let url: string

    before(async function () {
      skipWithout(found, this, `the example for ${name}, because no Python can import ${example.modules.join(', ')}`)
      fake = await startFakeAuth()
      auth = await startAuth({ now: clock.now })
      business = await startBusiness(auth.internalUrl)
      ;({ url } = await startExample(found, example, auth.internalUrl))
    })
    after(async () => {
      for (const child of running) child.kill('SIGKILL')
      await Promise.all([closeServers(), fake?.stop()])
    })

    async function expectSame(lines: string[]) {
      const [expected, given] = [await look(business.url, lines), await look(url, lines)]
      expect(given).to.deep.equal(expected)
      return expected
    }
    const issue = async (body: Record<string, unknown>) =>
      (await ask<{ token: string }>('POST', `${auth.internalUrl}/tokens`, adminKey, body)).body.token

    it('answers as Business does: with a live token, without one, with a dead one, with two', async () => {
      const dead = await logIn(auth.url)
      clock.advance(30_000)
      const good = await logIn(auth.url)
      const guest = await issue({ kind: 'fixed', ttlSeconds: 60 })
      for (const [lines, status] of [
        [[`Authorization: Bearer ${good}`], 200],
        [[`Token: ${good}`], 200],
        [[`Token: ${guest}`], 200],
        [[], 401],
        [['Authorization: Basic Z29vZDpnb29k'], 401],
        [[`Token: ${dead}`], 401],
        [[`Authorization: Bearer ${'x'.repeat(3000)}`], 401],
        [[`Authorization: Bearer ${good}`, `Token: ${good}`], 400],
        [[`Authorization: Bearer ${good}`, `Authorization: Bearer ${good}`], 400],
        [[`Token: ${good}`, `Token: ${good}`], 400],
      ] as const) {
        expect((await expectSame([...lines])).status, lines.join()).to.equal(status)
      }
    })

    it('refuses a token on the next request after it is revoked, and admits a single-use token once', async () => {
      const token = await logIn(auth.url)
      expect((await look(url, [`Token: ${token}`])).status).to.equal(200)
      await ask('POST', `${auth.url}/logout`, token)
      expect((await look(url, [`Token: ${token}`])).status).to.equal(401)
      const once = await issue({ kind: 'single-use', ttlSeconds: 60 })
      const answers = await Promise.all(Array.from({ length: 10 }, () => look(url, [`Token: ${once}`])))
      expect(answers.map(({ status }) => status).sort()).to.deep.equal([200, ...Array(9).fill(401)])
    })

    it('is 503 as Business is while Auth gives no verdict, and serves again', async () => {
      const { url: faked } = await startExample(found as string, example, fake.url)
      const { url: ofBusiness } = await startBusiness(fake.url)
      fake.behave(call => call.reply({ status: 503 }))
      const answers = await Promise.all([faked, ofBusiness].map(one => look(one, ['Token: good'])))
      expect(answers[0]).to.deep.equal(answers[1])
      expect(answers[0]).to.include({ status: 503, retryAfter: '1', challenge: null })
      fake.reset()
      expect((await look(faked, ['Token: good'])).status).to.equal(200)
    })

    if (name === 'starlette') {
      it('opens a WebSocket only with a live token', async () => {
        const upgrade = (token: string) =>
          sendRaw(
            url,
            `GET /greet HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n` +
              `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nToken: ${token}\r\n\r\n`,
            5000,
          )
        const opened = await upgrade(await logIn(auth.url))
        expect(opened.status).to.equal(101)
        expect(opened.body).to.include('Hello, demo@example.com!')
        const refused = await upgrade('unknown')
        expect([refused.status, refused.body.includes('Hello')]).to.deep.equal([403, false])
      })

      it('answers requests under way on SIGTERM, and then closes its connections to Auth', async () => {
        fake.reset()
        const { url: faked, child, output } = await startExample(found as string, example, fake.url)
        fake.behave(hold)
        const underWay = look(faked, ['Token: good'])
        await fake.called(1)
        const ended = once(child, 'close')
        child.kill('SIGTERM')
        await until(() => output().includes('Waiting for') || null)
        fake.calls[0]?.reply()
        expect((await underWay).status).to.equal(200)
        await ended
        expect(output()).to.include('Application shutdown complete').and.not.include('Traceback')
      })
    }
  })
}
