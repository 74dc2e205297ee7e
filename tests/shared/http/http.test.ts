// Bad input to Auth's real listeners: every answer is a 4xx that says what is expected and reveals nothing.

import { once } from 'node:events'
import { Agent, request, STATUS_CODES } from 'node:http'
import { connect } from 'node:net'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { expect } from 'chai'
import fc from 'fast-check'
import { health } from '../../../shared/http/health.ts'
import { createListener } from '../../../shared/http/listener.ts'
import { parseAnswer, type RawAnswer, sendRaw } from '../../support/raw.ts'
import {
  closeServers,
  collectLog,
  createClock,
  demo,
  type LogLine,
  serviceKey,
  startAuth,
} from '../../support/servers.ts'

type Body = NonNullable<RequestInit['body']>

interface Answer {
  status: number
  headers: Headers
  body: string
}

interface Question {
  method?: string
  headers?: Record<string, string>
  body?: Body
}

const credentials = { username: demo.username, password: 'CANARY-PW-3f9c1b' }
const previousKey = 'previous-service-key-0123456789abcdefghijkl'
const json = { 'content-type': 'application/json' }
const form = { 'content-type': 'application/x-www-form-urlencoded' }
const megabyte = 1024 * 1024
const quietMs = 5000 // elapses only if the server neither answers nor closes, and then the test fails

const leaks = /\n\s*at |[\w)]:\d+:\d+|node_modules|file:\/\/|node:|\bE(CONN|PIPE|ADDR)|SyntaxError|position \d|koa|zod/i
const houseHeaders = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}
const untold = [
  'server',
  'x-powered-by',
  'set-cookie',
  'access-control-allow-origin',
  'access-control-allow-credentials',
]
const errorOf: Record<number, string> = {
  400: 'invalid_request',
  404: 'not_found',
  405: 'method_not_allowed',
  413: 'too_large',
  415: 'unsupported_media_type',
  431: 'invalid_request',
  503: 'unavailable',
}

/** Uses its own connection. */
async function ask(url: string, { method = 'POST', headers = {}, body }: Question = {}): Promise<Answer> {
  const answer = await fetch(url, {
    method,
    headers: { connection: 'close', ...headers },
    ...(body !== undefined && { body }),
    ...(body instanceof ReadableStream && { duplex: 'half' as const }),
  })
  return { status: answer.status, headers: answer.headers, body: await answer.text() }
}

/** A request in raw bytes with `Connection: close`. */
function bytesOf(requestLine: string, headers: string[] = [], body = ''): string {
  return [requestLine, 'Host: auth', 'Connection: close', ...headers, '', body].join('\r\n')
}

function expectHouseHeaders({ headers }: Answer): void {
  expect(headers.get('x-request-id')).to.match(/^[A-Za-z0-9._-]{1,64}$/)
  for (const [name, value] of Object.entries(houseHeaders)) expect(headers.get(name), name).to.equal(value)
  for (const name of untold) expect(headers.has(name), name).to.equal(false)
}

function expectProblem(answer: Answer, status: number, detail: RegExp, error = errorOf[status]): void {
  expect(answer.status, answer.body).to.equal(status)
  expectHouseHeaders(answer)
  expect(answer.headers.get('content-type')).to.equal('application/problem+json')
  const problem = JSON.parse(answer.body) as Record<string, unknown>
  expect(problem).to.deep.equal({
    type: 'about:blank',
    title: STATUS_CODES[status],
    status,
    detail: problem['detail'],
    error,
    requestId: answer.headers.get('x-request-id'),
  })
  expect(problem['detail']).to.match(detail)
  expect(answer.body).not.to.match(leaks)
  expect(answer.body).not.to.include('CANARY')
}

describe('HTTP', () => {
  const clock = createClock()
  let auth: Awaited<ReturnType<typeof startAuth>>

  before(async () => {
    const env = { DEMO_PASSWORD: credentials.password, SERVICE_KEY_PREVIOUS: previousKey }
    auth = await startAuth({ env, now: clock.now })
  })
  afterEach('nothing failed inside, and no prototype was polluted', () => {
    const isFailure = ({ level, event }: LogLine) => (level === 'error' || level === 'warn') && event !== 'key_refused'
    expect(auth.lines.filter(isFailure)).to.deep.equal([])
    expect(Object.keys(Object.prototype)).to.deep.equal([])
  })
  after(closeServers)

  const login = (body: Body, headers: Record<string, string> = json) => ask(`${auth.url}/login`, { headers, body })
  const validate = (body: Body, headers: Record<string, string> = {}) =>
    ask(`${auth.internalUrl}/validateToken`, {
      headers: { ...json, authorization: `Bearer ${serviceKey}`, ...headers },
      body,
    })
  const send = (bytes: string | Buffer) => sendRaw(auth.url, bytes, quietMs)
  async function logIn(): Promise<string> {
    const { body } = await login(JSON.stringify(credentials))
    return (JSON.parse(body) as { token: string }).token
  }

  describe('a body of JSON', () => {
    const password = `"password":"${credentials.password}"`
    const refused: [what: string, body: string | Buffer<ArrayBuffer>, detail: RegExp][] = [
      ['nothing', '', /empty.* JSON object/],
      ['white space', ' \r\n\t ', /JSON/],
      ['a byte order mark alone', '\ufeff', /empty.* JSON object/],
      ['two byte order marks', `\ufeff\ufeff${JSON.stringify(credentials)}`, /JSON/],
      ['half an object', `{${password}`, /JSON/],
      ['text after the object', `{"username":"a",${password}}}`, /JSON/],
      ['a NUL after the object', `{"username":"a",${password}}\0`, /JSON/],
      ['text after a member', `{"username":"a",${password} oops}`, /JSON/],
      ['a trailing comma', `{"username":"a",${password},}`, /JSON/],
      ['single quotes', "{'username':'a'}", /JSON/],
      ['a comment', `/**/{"username":"a",${password}}`, /JSON/],
      ['a raw line break in a string', `{"username":"a\nb",${password}}`, /JSON/],
      ['UTF-16', Buffer.from(`\ufeff${JSON.stringify(credentials)}`, 'utf16le'), /JSON|UTF-8/],
      ['Latin-1', Buffer.from(`{"username":"é",${password}}`, 'latin1'), /UTF-8/],
      ['an overlong UTF-8 sequence', Buffer.from(`{"username":"\xc0\xaf",${password}}`, 'latin1'), /UTF-8/],
      ['a surrogate in UTF-8', Buffer.from(`{"username":"\xed\xa0\x80",${password}}`, 'latin1'), /UTF-8/],
      ['U+FFFD, which stands for what is not UTF-8', `{"username":"\ufffd",${password}}`, /UTF-8/],
      ['half a UTF-8 sequence at its end', Buffer.from(`{"username":"a",${password}}\xc3`, 'latin1'), /UTF-8|JSON/],
      ['a number', '1', /JSON object/],
      ['a string', '"a"', /JSON object/],
      ['a boolean', 'true', /JSON object/],
      ['null', 'null', /JSON object/],
      ['NaN', 'NaN', /JSON/],
      ['an array', '[]', /expected object/],
      ['an array of what is expected', `[${JSON.stringify(credentials)}]`, /expected object/],
      ['deeply nested arrays', '['.repeat(8000) + ']'.repeat(8000), /expected object/],
      ['deeply nested objects', '{"username":'.repeat(1200) + '1'.padEnd(1201, '}'), /username: expected a username/],
      ['a member that is not known', `{"username":"a",${password},"role":"admin"}`, /role/],
      ['a member named as a column', `{"username":"a",${password},"passwordHash":"x"}`, /passwordHash/],
      ['the member constructor', `{"username":"a",${password},"constructor":{"prototype":{"x":1}}}`, /constructor/],
      ['the member prototype', `{"username":"a",${password},"prototype":{"x":1}}`, /prototype/],
      ['the member toString', `{"username":"a",${password},"toString":"x"}`, /toString/],
      ['the member __proto__', `{"username":"a",${password},"__proto__":{"x":1}}`, /./],
      ['the member __proto__ that is no object', `{"username":"a",${password},"__proto__":1}`, /./],
      ['the member __proto__ in disguise', `{"username":"a",${password},"\\u005f_proto__":{"x":1}}`, /./],
      ['__proto__ inside a member', `{"username":{"__proto__":{"x":1}},${password}}`, /./],
    ]
    for (const [what, body, detail] of refused) {
      it(`is 400 where it is or has ${what}`, async () => {
        expectProblem(await login(body), 400, detail)
      })
    }

    it('may begin with one byte order mark, which is ignored (RFC 8259 section 8.1)', async () => {
      expect((await login(`\ufeff${JSON.stringify(credentials)}`)).status).to.equal(200)
    })

    const values: [what: string, json: string][] = [
      ['null', 'null'],
      ['a boolean', 'true'],
      ['a number', '1'],
      ['a number above all numbers', '1e999'],
      ['a number of 5000 digits', '9'.repeat(5000)],
      ['a negative zero', '-0'],
      ['an array', '[]'],
      ['an array of a string', '["a"]'],
      ['an object', '{}'],
      ['an object like an operator', '{"$ne":"a"}'],
      ['an object like a string', '{"length":1,"0":"a","toString":"a"}'],
    ]
    for (const member of ['username', 'password'] as const) {
      const other = member === 'username' ? `"password":"CANARY"` : `"username":"CANARY"`
      const withValue = (value: string) => login(`{"${member}":${value},${other}}`)

      it(`is 400 without ${member}, and says what is expected`, async () => {
        expectProblem(await login(`{${other}}`), 400, new RegExp(`^${member}: expected a ${member}, as a string(;|$)`))
      })
      for (const [what, value] of values) {
        it(`is 400 where ${member} is ${what}`, async () => {
          expectProblem(await withValue(value), 400, new RegExp(`^${member}: expected a ${member}, as a string(;|$)`))
        })
      }
      it(`is 400 where ${member} is empty or longer than 256 characters`, async () => {
        for (const value of ['', 'a'.repeat(257), 'a'.repeat(10_000), '😀'.repeat(257)]) {
          expectProblem(
            await withValue(JSON.stringify(value)),
            400,
            new RegExp(`^${member}: .* of 1 to 256 characters`),
          )
        }
      })
      it(`is 400 where ${member} has half a surrogate pair`, async () => {
        for (const value of ['\ud83d', '\ude00', 'a\ud83db', '\ude00\ud83d']) {
          expectProblem(await withValue(JSON.stringify(value)), 400, new RegExp(`^${member}: .* valid Unicode`))
        }
      })
      it(`is understood where ${member} has 256 characters outside the BMP`, async () => {
        const answer = await withValue(JSON.stringify('😀'.repeat(256)))
        expectProblem(answer, 401, /username or the password/, 'invalid_credentials')
      })
    }

    const odd = [
      '__proto__',
      'constructor',
      'prototype',
      'toString',
      'hasOwnProperty',
      'valueOf',
      '$where',
      '\0',
      '\ufffd',
    ]
    it('names users by ordinary strings: __proto__, constructor, toString and their like are unknown, 401', async () => {
      for (const name of odd) {
        const body = JSON.stringify({ username: name, password: name }).replaceAll('\ufffd', '\\ufffd')
        const answer = await login(body)
        expectProblem(answer, 401, /^The username or the password is wrong\.$/, 'invalid_credentials')
        expect(answer.headers.get('www-authenticate')).to.equal('Bearer realm="latchkey"')
      }
    })

    it('is 400, whatever JSON it is', async () => {
      const anything = fc.jsonValue().map(value => JSON.stringify(value))
      await fc.assert(
        fc.asyncProperty(anything, async body => expectProblem(await login(body), 400, /./)),
        { numRuns: 100 },
      )
    })

    it('is 400, whatever bytes it is', async () => {
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async bytes => {
          expectProblem(await login(new Uint8Array(bytes)), 400, /./)
        }),
        { numRuns: 100 },
      )
    })

    it('is 400, whatever else than a string its members are', async () => {
      const member = fc.jsonValue().filter(value => typeof value !== 'string')
      await fc.assert(
        fc.asyncProperty(member, member, async (username, password) => {
          expectProblem(await login(JSON.stringify({ username, password })), 400, /./)
        }),
        { numRuns: 100 },
      )
    })
  })

  describe('a body', () => {
    it('has at most 16 KB: the next byte is 413', async () => {
      const body = JSON.stringify(credentials)
      expect((await login(body.padEnd(16 * 1024))).status).to.equal(200)
      expectProblem(await login(body.padEnd(16 * 1024 + 1)), 413, /at most 16384 bytes/)
      expectProblem(await login(body.padEnd(17 * 1024)), 413, /at most 16384 bytes/)
    })

    it('has at most 512 KB on /validateToken: 600 KB is 413', async () => {
      expect((await validate('{"token":"a"}'.padEnd(512 * 1024))).body).to.equal('{"authenticated":false}')
      expectProblem(await validate(JSON.stringify({ token: 'a'.repeat(600 * 1024) })), 413, /at most 524288 bytes/)
    })

    it('is 413 with a readable problem when it is 50 MB, told in advance or not', async () => {
      expectProblem(await login(new Uint8Array(50 * megabyte)), 413, /at most 16384 bytes/)
      let rest = 50
      const chunks = new ReadableStream({
        pull(controller) {
          if (rest-- > 0) controller.enqueue(new Uint8Array(megabyte))
          else controller.close()
        },
      })
      expectProblem(await login(chunks), 413, /at most 16384 bytes/)
    })

    const framings: [how: string, header: string, frame: (chunk: string) => string, end: string][] = [
      ['told in advance', `Content-Length: ${50 * megabyte}`, chunk => chunk, ''],
      ['in chunks', 'Transfer-Encoding: chunked', chunk => `${chunk.length.toString(16)}\r\n${chunk}\r\n`, '0\r\n\r\n'],
    ]
    for (const [how, header, frame, end] of framings) {
      it(`of 50 MB, ${how}, is 413 to who reads only after sending, and the connection goes on`, async () => {
        const { hostname, port } = new URL(auth.url)
        const socket = connect({ host: hostname, port: Number(port) })
        try {
          await once(socket, 'connect')
          socket.setTimeout(quietMs, () => socket.destroy(new Error('the server does not read on')))
          socket.write(`POST /login HTTP/1.1\r\nHost: auth\r\nContent-Type: application/json\r\n${header}\r\n\r\n`)
          const chunk = frame('a'.repeat(megabyte))
          for (let sent = 0; sent < 50; sent++) if (!socket.write(chunk)) await once(socket, 'drain')
          socket.write(`${end}${bytesOf('GET /health HTTP/1.1')}`)
          let text = ''
          for await (const part of socket) text += part
          const { status, headers, body } = parseAnswer(text)
          const next = body.indexOf('HTTP/1.1 ')
          expectProblem({ status, headers, body: body.slice(0, next) }, 413, /at most 16384 bytes/)
          expect(parseAnswer(body.slice(next))).to.include({ status: 200, body: '{"status":"ok"}' })
        } finally {
          socket.destroy()
        }
      })
    }

    it('is 400 where it nests arrays 100 000 deep', async () => {
      const depth = 100_000
      expectProblem(await validate('['.repeat(depth)), 400, /JSON/)
      expectProblem(await validate('['.repeat(depth) + ']'.repeat(depth)), 400, /expected object/)
      const nested = '['.repeat(depth) + ']'.repeat(depth)
      expectProblem(await validate(`{"tokens":${nested}}`), 400, /^tokens\.0: expected a string/)
      expectProblem(await validate(`{"token":${nested}}`), 400, /^token: expected a string/)
      expectProblem(await login('['.repeat(depth)), 413, /at most 16384 bytes/)
    })

    it('is 400 in a few words, however much in it is wrong', async () => {
      const members = Array.from({ length: 30_000 }, (_, i) => `"k${i}":1`)
      for (const body of [
        `{"token":"a",${members}}`,
        `{"tokens":[${Array(200).fill(1)}]}`,
        `{"${'k'.repeat(9000)}":1}`,
      ]) {
        const answer = await validate(body)
        expectProblem(answer, 400, /./)
        expect(answer.body.length).to.be.below(1000)
      }
    })

    const plain = Buffer.from(JSON.stringify(credentials))
    const bomb = Buffer.alloc(20 * megabyte, ' ')
    const encodings: [encoding: string, what: string, body: Buffer<ArrayBuffer>][] = [
      ['gzip', 'that is sound', gzipSync(plain)],
      ['gzip', 'that is not', plain],
      ['gzip', 'that inflates to 20 MB', gzipSync(bomb)],
      ['br', 'that is sound', brotliCompressSync(plain)],
      ['br', 'that is not', plain],
      ['deflate', 'that is sound', deflateSync(plain)],
      ['GZIP', 'in capitals', gzipSync(plain)],
      ['gzip, gzip', 'twice', gzipSync(gzipSync(plain))],
      ['identity, gzip', 'behind another', gzipSync(plain)],
      ['zstd', 'that is not', plain],
      ['compress', 'that is not', plain],
      ['anything', 'of no meaning', plain],
    ]
    for (const [encoding, what, body] of encodings) {
      it(`is 415 with Content-Encoding ${encoding}, ${what}`, async () => {
        expectProblem(await login(body, { ...json, 'content-encoding': encoding }), 415, /without Content-Encoding/)
      })
    }

    const types = [
      'text/plain',
      'text/json',
      'text/html',
      'application/xml',
      'application/jsonx',
      'application/json/',
      'application/json, text/plain',
      'application/vnd.api+json',
      'application/csp-report',
      'application/problem+json',
      'multipart/form-data; boundary=x',
      'application/octet-stream',
      'json',
      ';',
      'application/json; charset=utf-16',
      'application/json; charset=utf-7',
      'application/json; charset=iso-8859-1',
      'application/json; charset=""',
      'application/json; charset="utf-8',
      'application/json; charset=utf-8"',
      'application/json; charset=utf-8; charset=utf-7',
      'application/x-www-form-urlencoded; charset=iso-8859-1',
    ]
    for (const type of types) {
      it(`is 415 as Content-Type ${type}, which names those that are taken`, async () => {
        const answer = await login(JSON.stringify(credentials), { 'content-type': type })
        expectProblem(answer, 415, /application\/json or application\/x-www-form-urlencoded, in UTF-8/)
      })
    }

    it('is 415 without a Content-Type', async () => {
      const body = JSON.stringify(credentials)
      const { text, ...answer } = await send(bytesOf('POST /login HTTP/1.1', [`Content-Length: ${body.length}`], body))
      expectProblem(answer, 415, /application\/json/)
      expect(text).not.to.include('CANARY')
      expectProblem(await ask(`${auth.url}/login`), 415, /application\/json/)
    })

    it('is 415 as a form where JSON alone is taken', async () => {
      const answer = await validate('token=a', form)
      expectProblem(answer, 415, /^Send the body as Content-Type: application\/json, in UTF-8\.$/)
    })

    it('is read under every spelling of its type', async () => {
      const spellings = ['', ';', ';charset=utf-8', '; charset=UTF-8', ' ; charset="utf-8"', '; charset=utf-8;']
      for (const spelling of spellings) {
        const asJson = { 'content-type': `Application/JSON${spelling}` }
        expectProblem(await login('{"username":"a"}', asJson), 400, /^password: expected a password, as a string$/)
        const asForm = { 'content-type': `Application/X-WWW-Form-URLEncoded${spelling}` }
        expectProblem(await login('username=a', asForm), 400, /^password: expected a password, as a string$/)
      }
    })
  })

  describe('a body that is a form', () => {
    const pair = new URLSearchParams(credentials).toString()

    it('logs in', async () => {
      expect((await login(pair, form)).status).to.equal(200)
    })

    const refused: [body: string, detail: RegExp][] = [
      ['', /empty/],
      ['&&&', /username: expected/],
      ['username', /username: expected/],
      ['username[$ne]=1&password=x', /username: expected a username, as a string/],
      ['username=a&password[$gt]=', /password: expected a password, as a string/],
      ['username=a&username=b&password=x', /username/],
      ['username=a&password=x&password=x', /password/],
      ['username[]=a&password=x', /username/],
      ['username[0]=a&password=x', /username/],
      ['username.a=b&password=x', /username/],
      [`username${'[a]'.repeat(4000)}=a&password=x`, /username/],
      [`${pair}&role=admin`, /role/],
      [`${pair}&${'a=1&'.repeat(3000)}`, /a/],
    ]
    for (const [body, detail] of refused) {
      it(`is 400 as ${body.replace(pair, '…').slice(0, 40) || 'nothing'}`, async () => {
        expectProblem(await login(body, form), 400, detail)
      })
    }

    for (const member of ['__proto__', '__proto__[x]', 'constructor', 'constructor[prototype][x]', 'toString']) {
      it(`is 400 with the unknown member ${member}`, async () => {
        expectProblem(await login(`${pair}&${member}=1`, form), 400, /./)
      })
    }

    it('is 400 with an unknown member, however many stand before it', async () => {
      expectProblem(await login(`${pair}${'&'.repeat(1500)}role=admin`, form), 400, /role/)
    })

    it('is 400 where it is not UTF-8: no other bytes are the same password', async () => {
      for (const bytes of ['%ff', '%c3', '%ed%a0%80', '%c0%af']) {
        expectProblem(await login(`username=a&password=${bytes}`, form), 400, /./)
      }
    })

    it('is 400 where it is JSON after all, and the answer does not repeat it', async () => {
      for (const username of ['a', demo.username]) {
        expectProblem(await login(JSON.stringify({ username, password: credentials.password }), form), 400, /username/)
        expectProblem(await login(JSON.stringify({ password: credentials.password, username }), form), 400, /username/)
      }
    })
  })

  describe('a route', () => {
    const paths = [
      '/',
      '/LOGIN',
      '/Login',
      '/login/',
      '//login',
      '/./login',
      '/%6cogin',
      '/%6Cogin',
      '/login%00',
      '/login%20',
      '/login%2f',
      '/x/../login',
      '/x/%2e%2e/login',
      '/login/..',
      '/login;a=b',
      '/login\\',
      '/login.json',
      '/nowhere',
      '/%',
      '/%ff',
      '/__proto__',
      '/constructor',
      '/validateToken',
      '*',
    ]
    for (const path of paths) {
      it(`is matched exactly: POST ${path} is 404`, async () => {
        const body = JSON.stringify(credentials)
        const headers = ['Content-Type: application/json', `Content-Length: ${body.length}`]
        expectProblem(await send(bytesOf(`POST ${path} HTTP/1.1`, headers, body)), 404, /nothing at this path/)
        expectProblem(await send(bytesOf(`GET ${path} HTTP/1.1`)), 404, /nothing at this path/)
      })
    }

    it('is 404 for every method where there is none', async () => {
      for (const method of ['PUT', 'DELETE', 'OPTIONS', 'PROPFIND', 'TRACE', 'SEARCH']) {
        expectProblem(await send(bytesOf(`${method} /nowhere HTTP/1.1`)), 404, /nothing at this path/)
      }
    })

    it('does not depend on the query', async () => {
      expectProblem(await ask(`${auth.url}/login?username=a&password=b`), 415, /Content-Type/)
      expect((await ask(`${auth.url}/health?x=1`, { method: 'GET' })).status).to.equal(200)
    })

    const routes: [listener: 'url' | 'internalUrl', path: string, allowed: string[]][] = [
      ['url', '/login', ['POST']],
      ['url', '/logout', ['POST']],
      ['url', '/health', ['GET', 'HEAD']],
      ['url', '/ready', ['GET', 'HEAD']],
      ['internalUrl', '/validateToken', ['POST']],
      ['internalUrl', '/health', ['GET', 'HEAD']],
    ]
    const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'PROPFIND', 'QUERY', 'TRACE']
    const allowOf = ({ headers }: Answer) => headers.get('allow')?.split(', ').sort()
    for (const [listener, path, allowed] of routes) {
      const where = `${path}${listener === 'internalUrl' ? ' on the internal listener' : ''}`

      it(`that does not take a method is 405 with those it takes: ${where}`, async () => {
        for (const method of methods.filter(method => !allowed.includes(method))) {
          const answer = await sendRaw(auth[listener], bytesOf(`${method} ${path} HTTP/1.1`), quietMs)
          expect(allowOf(answer), method).to.deep.equal(allowed)
          if (method === 'HEAD') expect(answer).to.include({ status: 405, body: '' })
          else expectProblem(answer, 405, /does not support this method\. Allow/)
        }
      })

      it(`answers OPTIONS with the methods it takes: ${where}`, async () => {
        const answer = await ask(`${auth[listener]}${path}`, { method: 'OPTIONS' })
        expect(answer.status).to.equal(200)
        expect(allowOf(answer)).to.deep.equal(allowed)
        expectHouseHeaders(answer)
      })

      if (!allowed.includes('HEAD')) continue
      it(`answers HEAD as GET, without a body: ${where}`, async () => {
        const [head, get] = await Promise.all(
          ['HEAD', 'GET'].map(method => sendRaw(auth[listener], bytesOf(`${method} ${path} HTTP/1.1`), quietMs)),
        )
        expect(get?.body).to.match(/^\{"status":"\w+"\}$/)
        expect(head?.body).to.equal('')
        expect(head?.status).to.equal(get?.status)
        const [ofHead, ofGet] = [head, get].map(answer => {
          answer?.headers.delete('date')
          answer?.headers.delete('x-request-id')
          return Object.fromEntries(answer?.headers ?? [])
        })
        expect(ofHead).to.deep.equal(ofGet)
      })
    }

    it('is not taken by an unknown method, or by one in small letters: 400', async () => {
      for (const method of ['FOO', 'post', 'Post', 'GETS', 'PO ST']) {
        expectProblem(await send(bytesOf(`${method} /login HTTP/1.1`)), 400, /well-formed HTTP/)
      }
    })

    it('is not traced, and nothing is echoed', async () => {
      const { text, status } = await send(bytesOf('TRACE /health HTTP/1.1', ['Authorization: Bearer CANARY']))
      expect(status).to.equal(405)
      expect(text).not.to.include('CANARY')
    })

    it('is no tunnel: CONNECT is refused and the connection closed', async () => {
      for (const target of ['example.com:443', '/login']) {
        const { status, closed } = await send(bytesOf(`CONNECT ${target} HTTP/1.1`))
        expect(status).to.satisfy((status: number) => status === 0 || status >= 400)
        expect(closed).to.equal(true)
      }
    })

    it('is not upgraded to another protocol', async () => {
      const upgrade = ['GET /health HTTP/1.1', 'Host: auth', 'Connection: close, Upgrade', 'Upgrade: websocket', '', '']
      expect((await send(upgrade.join('\r\n'))).status).to.equal(200)
    })
  })

  describe('what is not HTTP/1.1', () => {
    const post = ['POST /login HTTP/1.1', 'Host: auth', 'Content-Type: application/json']
    const bad: [what: string, lines: string[], body?: string][] = [
      ['the preface of HTTP/2', ['PRI * HTTP/2.0', '', 'SM']],
      [
        'a Content-Length and a Transfer-Encoding',
        [...post, 'Content-Length: 5', 'Transfer-Encoding: chunked'],
        '0\r\n\r\n',
      ],
      [
        'a Transfer-Encoding and a Content-Length',
        [...post, 'Transfer-Encoding: chunked', 'Content-Length: 5'],
        '0\r\n\r\n',
      ],
      ['two Content-Lengths that differ', [...post, 'Content-Length: 2', 'Content-Length: 3'], '{}'],
      ['two Content-Lengths that agree', [...post, 'Content-Length: 2', 'Content-Length: 2'], '{}'],
      ['a list of Content-Lengths', [...post, 'Content-Length: 2, 2'], '{}'],
      ['a signed Content-Length', [...post, 'Content-Length: +2'], '{}'],
      ['a negative Content-Length', [...post, 'Content-Length: -1'], '{}'],
      ['a hexadecimal Content-Length', [...post, 'Content-Length: 0x2'], '{}'],
      ['a Content-Length above 2^64', [...post, 'Content-Length: 18446744073709551618'], '{}'],
      ['an unknown Transfer-Encoding', [...post, 'Transfer-Encoding: xchunked'], '0\r\n\r\n'],
      ['chunks that are not the last encoding', [...post, 'Transfer-Encoding: chunked, identity'], '0\r\n\r\n'],
      ['no encoding by name', [...post, 'Transfer-Encoding: identity'], '0\r\n\r\n'],
      ['two Transfer-Encodings', [...post, 'Transfer-Encoding: chunked', 'Transfer-Encoding: identity'], '0\r\n\r\n'],
      ['a blank before the colon', [...post, 'Transfer-Encoding : chunked'], '0\r\n\r\n'],
      ['a chunk size that is no number', [...post, 'Transfer-Encoding: chunked'], 'zz\r\n{}\r\n0\r\n\r\n'],
      ['a chunk longer than its size', [...post, 'Transfer-Encoding: chunked'], '2\r\n{}XX\r\n0\r\n\r\n'],
      ['a bare LF behind a chunk size', [...post, 'Transfer-Encoding: chunked'], '2;a\n{}\r\n0\r\n\r\n'],
      ['a folded header', [...post, 'X-A: a', ' b']],
      ['a bare LF between headers', [...post, 'X-A: a\nX-B: b']],
      ['a bare CR in a header', [...post, 'X-A: a\rX-B: b']],
      ['a NUL in a header', [...post, 'X-A: a\0b']],
      ['a header without a name', [...post, ': a']],
      ['a header without a colon', [...post, 'a']],
      ['a NUL in a path', ['GET /health\0 HTTP/1.1', 'Host: auth']],
      ['a blank in a path', ['GET /health /x HTTP/1.1', 'Host: auth']],
      ['binary bytes', ['\x16\x03\x01\0\xa5\x01\0\0']],
    ]
    const odd: [what: string, lines: string[]][] = [
      ['a line of HTTP/0.9', ['GET /health']],
      ['HTTP/2.0', ['GET /health HTTP/2.0', 'Host: auth', 'Connection: close']],
      ['no Host header', ['GET /health HTTP/1.1', 'Connection: close']],
      ['a fragment', ['GET /health#x HTTP/1.1', 'Host: auth', 'Connection: close']],
      ['two Host headers', ['GET /health HTTP/1.1', 'Host: auth', 'Host: other', 'Connection: close']],
      ['the same Host header twice', ['GET /health HTTP/1.1', 'Host: auth', 'host: auth', 'Connection: close']],
    ]
    for (const [what, lines] of odd) {
      it(`is 400: ${what}`, async () => {
        expectProblem(await send(`${lines.join('\r\n')}\r\n\r\n`), 400, /HTTP\/1\.1|Host|#/)
      })
    }

    const next = bytesOf('GET /health HTTP/1.1')
    for (const [what, lines, body = ''] of bad) {
      it(`is 400, and no request is seen behind it: ${what}`, async () => {
        const answer = await send(Buffer.from(`${lines.join('\r\n')}\r\n\r\n${body}${next}`, 'latin1'))
        expectProblem(answer, 400, /well-formed HTTP\/1\.1/)
        expect(answer.closed).to.equal(true)
        expect(answer.headers.get('connection')).to.equal('close')
        expect(answer.text.match(/HTTP\/1\.1 \d/g), answer.text).to.have.length(1)
      })
    }

    const large: [what: string, lines: string[]][] = [
      ['one header', [`X-A: ${'a'.repeat(17_000)}`]],
      ['a token', [`Authorization: Bearer ${'a'.repeat(17_000)}`]],
      ['many headers', Array(1500).fill('X-A: 12345')],
    ]
    it('is 415 where the body comes in a transfer coding beside chunked', async () => {
      const lines = ['Content-Type: application/json', 'Transfer-Encoding: gzip, chunked']
      const answer = await send(bytesOf('POST /login HTTP/1.1', lines).concat('2\r\n{}\r\n0\r\n\r\n'))
      expectProblem(answer, 415, /chunked/)
    })

    for (const [what, lines] of large) {
      it(`is 431 where ${what} makes the headers larger than 16 KB`, async () => {
        expectProblem(await send(bytesOf('GET /health HTTP/1.1', lines)), 431, /headers are too large/)
      })
    }
    it('is 431 where the path is longer than 16 KB', async () => {
      expectProblem(await send(bytesOf(`GET /${'a'.repeat(17_000)} HTTP/1.1`)), 431, /headers are too large/)
    })

    it('is 400 where a token has a CR or an LF in it, and the token is not revoked', async () => {
      const token = await logIn()
      for (const ill of [`${token}\r\n x`, `${token}\rX-A: b`, `${token}\nX-A: b`, `\r\n ${token}`]) {
        const answer = await send(bytesOf('POST /logout HTTP/1.1', [`Authorization: Bearer ${ill}`]))
        expectProblem(answer, 400, /well-formed HTTP/)
        expect(answer.text).not.to.include(token)
      }
      const encoded = { headers: { authorization: `Bearer ${token}%0d%0aX-A:%20b` } }
      expectProblem(await ask(`${auth.url}/logout`, encoded), 401, /missing, unknown, expired/, 'invalid_token')
      expect((await validate(JSON.stringify({ token }))).body).to.include('"authenticated":true')
    })

    it('ends nothing but its own connection', async () => {
      const body = JSON.stringify(credentials)
      const first = ['POST /login HTTP/1.1', 'Host: auth', 'Content-Type: application/json']
      const inFlight = [...first, `Content-Length: ${body.length}`, '', body].join('\r\n')
      await Promise.all(Array.from({ length: 5 }, () => send(`${inFlight}\0\0garbage\r\n\r\n`)))
      expect((await ask(`${auth.url}/health`, { method: 'GET' })).status).to.equal(200)
    })
  })

  describe('every answer', () => {
    const get = (path: string) => ask(`${auth.url}${path}`, { method: 'GET' })
    const answers: [what: string, status: number, ask: () => Promise<Answer | RawAnswer>][] = [
      ['health', 200, () => get('/health')],
      ['ready', 200, () => get('/ready')],
      ['log in', 200, () => login(JSON.stringify(credentials))],
      ['log out', 204, async () => ask(`${auth.url}/logout`, { headers: { token: await logIn() } })],
      ['log out without a token', 401, () => ask(`${auth.url}/logout`)],
      ['a wrong password', 401, () => login(JSON.stringify({ ...credentials, password: 'wrong' }))],
      ['a bad body', 400, () => login('{')],
      ['no such path', 404, () => get('/nowhere')],
      ['no such method', 405, () => get('/login')],
      ['a large body', 413, () => login('a'.repeat(20_000))],
      ['a type that is not taken', 415, () => login('{}', {})],
      ['OPTIONS', 200, () => ask(`${auth.url}/login`, { method: 'OPTIONS' })],
      ['HEAD', 200, () => ask(`${auth.url}/health`, { method: 'HEAD' })],
      ['HTTP/1.0', 200, () => send('GET /health HTTP/1.0\r\n\r\n')],
      ['bytes that are not HTTP', 400, () => send('\0\r\n\r\n')],
      ['large headers', 431, () => send(bytesOf('GET / HTTP/1.1', [`X-A: ${'a'.repeat(17_000)}`]))],
      ['a verdict', 200, () => validate('{"token":"a"}')],
      ['a wrong key', 401, () => validate('{"token":"a"}', { authorization: 'Bearer wrong' })],
    ]
    for (const [what, status, ask] of answers) {
      it(`has a request id, no-store and the security headers: ${what}, ${status}`, async () => {
        const answer = await ask()
        expect(answer.status).to.equal(status)
        expectHouseHeaders(answer)
      })
    }

    it('has them too where an expectation is not one we know', async () => {
      const { status, ...answer } = await send(bytesOf('GET /health HTTP/1.1', ['Expect: miracles']))
      expect(status).to.be.oneOf([200, 417])
      expectHouseHeaders({ status, ...answer })
    })

    it('is 401 with a challenge that names an error only where a token was sent', async () => {
      const without = await ask(`${auth.url}/logout`)
      expectProblem(without, 401, /Authorization: Bearer <token>/, 'invalid_token')
      expect(without.headers.get('www-authenticate')).to.equal('Bearer realm="latchkey"')
      const withOne = await ask(`${auth.url}/logout`, { headers: { authorization: 'Bearer not a token' } })
      expectProblem(withOne, 401, /missing, unknown, expired or revoked/, 'invalid_token')
      expect(withOne.headers.get('www-authenticate')).to.equal('Bearer realm="latchkey", error="invalid_token"')
    })

    for (const id of ['a', 'A.b_c-9', '0'.repeat(64), 'b3f0c2d4-0000-4000-8000-000000000000']) {
      it(`repeats a well-formed X-Request-Id: ${id}`, async () => {
        const ok = await ask(`${auth.url}/health`, { method: 'GET', headers: { 'x-request-id': id } })
        expect(ok.headers.get('x-request-id')).to.equal(id)
        const bad = await login('{', { ...json, 'x-request-id': id })
        expectProblem(bad, 400, /JSON/)
        expect(bad.headers.get('x-request-id')).to.equal(id)
      })
    }

    const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
    for (const id of [
      '',
      '0'.repeat(65),
      '0'.repeat(5000),
      'a b',
      'a;b',
      '<script>',
      '{"a":1}',
      'é',
      'a/b',
      'a%0d%0ab',
    ]) {
      it(`replaces an ill-formed X-Request-Id: ${id.length > 20 ? `${id.length} characters` : `"${id}"`}`, async () => {
        const answer = await login('{', { ...json, 'x-request-id': id })
        expectProblem(answer, 400, /JSON/)
        expect(answer.headers.get('x-request-id')).to.match(uuid)
      })
    }

    it('replaces an X-Request-Id that is sent twice', async () => {
      const answer = await send(bytesOf('GET /nowhere HTTP/1.1', ['X-Request-Id: a', 'X-Request-Id: b']))
      expectProblem(answer, 404, /nothing/)
      expect(answer.headers.get('x-request-id')).to.match(uuid)
    })
  })

  describe('POST /validateToken', () => {
    const authorizations: [
      what: string,
      authorization: () => Record<string, string> | Promise<Record<string, string>>,
    ][] = [
      ['no key', () => ({})],
      ['an empty key', () => ({ authorization: 'Bearer ' })],
      ['a wrong key', () => ({ authorization: `Bearer ${'x'.repeat(serviceKey.length)}` })],
      ['a key that begins as ours', () => ({ authorization: `Bearer ${serviceKey.slice(0, -1)}` })],
      ['a key that goes on after ours', () => ({ authorization: `Bearer ${serviceKey}x` })],
      ['our key in capitals', () => ({ authorization: `Bearer ${serviceKey.toUpperCase()}` })],
      ['our key under another scheme', () => ({ authorization: `Basic ${serviceKey}` })],
      ["a user's token", async () => ({ authorization: `Bearer ${await logIn()}` })],
      ["a user's token in the header token", async () => ({ token: await logIn() })],
    ]
    for (const [what, authorization] of authorizations) {
      it(`is 401 with ${what}, before the body is looked at`, async () => {
        const headers = await authorization()
        const path = `${auth.internalUrl}/validateToken`
        const bodies: Question[] = [
          { headers: { ...headers, ...json }, body: '{"token":"a"}' },
          { headers: { ...headers, ...json }, body: '{' },
          { headers: { ...headers, ...json }, body: 'a'.repeat(600 * 1024) },
          { headers: { ...headers, 'content-type': 'text/plain' }, body: 'a' },
          { headers },
        ]
        for (const question of bodies) {
          const answer = await ask(path, question)
          expectProblem(answer, 401, /Authorization: Bearer/, 'invalid_token')
          expect(answer.headers.get('www-authenticate')).to.match(/^Bearer realm="/)
        }
      })
    }

    it('is opened by the key and, while keys are rotated, by the previous one', async () => {
      for (const key of [serviceKey, previousKey]) {
        expect(await validate('{"token":"a"}', { authorization: `Bearer ${key}` })).to.include({
          status: 200,
          body: '{"authenticated":false}',
        })
      }
    })

    it('is 400 with two keys, even if one is right', async () => {
      const headers = [`Authorization: Bearer ${serviceKey}`, 'Authorization: Bearer wrong']
      const answer = await sendRaw(auth.internalUrl, bytesOf('POST /validateToken HTTP/1.1', headers), quietMs)
      expectProblem(answer, 400, /token once/)
    })

    it('is not there on the public listener, nor are public routes on the internal one', async () => {
      const headers = { ...json, authorization: `Bearer ${serviceKey}` }
      expectProblem(await ask(`${auth.url}/validateToken`, { headers, body: '{"token":"a"}' }), 404, /nothing/)
      for (const path of ['/login', '/logout', '/sessions']) {
        expectProblem(await ask(`${auth.internalUrl}${path}`, { headers, body: '{}' }), 404, /nothing/)
      }
    })

    it('has keys that are no tokens: one that logs out ends nothing', async () => {
      const token = await logIn()
      const answer = await ask(`${auth.url}/logout`, { headers: { authorization: `Bearer ${serviceKey}` } })
      expect(answer.status).to.equal(204)
      expect((await validate(JSON.stringify({ token: serviceKey }))).body).to.equal('{"authenticated":false}')
      expect((await validate(JSON.stringify({ token }))).body).to.include('"authenticated":true')
    })

    const refused: [what: string, body: string, detail: RegExp][] = [
      ['neither token nor tokens', '{}', /^expected either token or tokens$/],
      ['both token and tokens', '{"token":"a","tokens":["a"]}', /^expected either token or tokens$/],
      ['a token that is null', '{"token":null}', /^token: expected a string$/],
      ['a token that is a number', '{"token":1}', /^token: expected a string$/],
      ['a token that is an array', '{"token":["a"]}', /^token: expected a string$/],
      ['a token that is an object', '{"token":{"$ne":1}}', /^token: expected a string$/],
      ['tokens that are null', '{"tokens":null}', /^tokens: expected an array of strings$/],
      ['tokens that are a string', '{"tokens":"a"}', /^tokens: expected an array of strings$/],
      ['tokens that look like an array', '{"tokens":{"0":"a","length":1}}', /^tokens: expected an array of strings$/],
      ['no tokens', '{"tokens":[]}', /^tokens: expected 1 to 256 tokens$/],
      ['257 tokens', JSON.stringify({ tokens: Array(257).fill('a') }), /^tokens: expected 1 to 256 tokens$/],
      ['null among tokens', '{"tokens":["a",null]}', /^tokens\.1: expected a string$/],
      ['a number among tokens', '{"tokens":["a","b",1e999]}', /^tokens\.2: expected a string$/],
      ['tokens among tokens', '{"tokens":[["a"]]}', /^tokens\.0: expected a string$/],
      ['an object among tokens', '{"tokens":[{}]}', /^tokens\.0: expected a string$/],
      ['an unknown member', '{"token":"a","userId":"b"}', /userId/],
      ['the member __proto__', '{"token":"a","__proto__":{"tokens":["a"]}}', /./],
      ['an array', '["a"]', /expected object/],
    ]
    for (const [what, body, detail] of refused) {
      it(`is 400 for ${what}, and no token in it is extended`, async () => {
        expectProblem(await validate(body), 400, detail)
      })
    }

    it('takes 256 tokens', async () => {
      const { body } = await validate(JSON.stringify({ tokens: Array(256).fill('a') }))
      expect(JSON.parse(body)).to.deep.equal({ verdicts: Array(256).fill({ authenticated: false }) })
    })

    it('answers exactly what the contract says of a live token, and exactly {authenticated: false} of others', async () => {
      const token = await logIn()
      const createdAt = clock.now()
      clock.advance(1000)
      const { headers, body } = await validate(JSON.stringify({ token }))
      expect(headers.get('content-type')).to.equal('application/json; charset=utf-8')
      const { tokenId, userId, ...rest } = JSON.parse(body) as Record<string, unknown>
      expect(rest).to.deep.equal({
        authenticated: true,
        kind: 'sliding',
        username: demo.username,
        createdAt,
        expiresAt: clock.now() + 30_000,
        absoluteExpiresAt: createdAt + 43_200_000,
        refreshCount: 1,
      })
      expect(tokenId).to.match(/^[0-9A-Za-z]{14}$/)
      expect(userId).to.match(/^demo-[0-9a-f]{27}$/)
      expect(body).not.to.include(token)
      clock.advance(30_000)
      expect((await validate(JSON.stringify({ token }))).body).to.equal('{"authenticated":false}')
    })

    it('answers ill-formed strings with {authenticated: false}, each in its place', async () => {
      const [first, second] = [await logIn(), await logIn()]
      const changed = `${first.slice(0, -1)}${first.endsWith('0') ? '1' : '0'}`
      const ill = [
        '',
        ' ',
        'a',
        'lk_',
        changed,
        `${first} `,
        `${first}\r\n`,
        'é',
        '\ud800',
        '\0',
        '__proto__',
        'a'.repeat(3000),
      ]
      const { body } = await validate(JSON.stringify({ tokens: [first, ...ill, second, first] }))
      const { verdicts } = JSON.parse(body) as { verdicts: Record<string, unknown>[] }
      expect(verdicts.slice(1, -2)).to.deep.equal(ill.map(() => ({ authenticated: false })))
      const live = [verdicts[0], verdicts.at(-2), verdicts.at(-1)]
      expect(live.map(verdict => verdict?.['refreshCount'])).to.deep.equal([1, 1, 2])
      expect(live[0]?.['tokenId']).to.equal(live[2]?.['tokenId']).and.not.to.equal(live[1]?.['tokenId'])
      for (const token of ill)
        expect((await validate(JSON.stringify({ token }))).body).to.equal('{"authenticated":false}')
    })
  })

  describe('closing', () => {
    it('loses no request of 50 busy connections, and tells each with Connection: close', async () => {
      const { url, internalUrl, service } = await startAuth()
      const counts = { sent: 0, answered: 0, lost: 0, closed: 0 }
      // Uses one connection and sends the next request as soon as the last is answered, until the server says close.
      function load(port: string, path: string, headers: Record<string, string>, body: string): Promise<void> {
        const agent = new Agent({ keepAlive: true, maxSockets: 1 })
        return new Promise(resolve => {
          function next(): void {
            counts.sent++
            const options = { host: '127.0.0.1', port, path, method: 'POST', headers, agent }
            const sent = request(options, answer => {
              answer.resume().once('end', () => {
                counts.answered++
                if (answer.headers.connection !== 'close') return void setImmediate(next)
                counts.closed++
                agent.destroy()
                resolve()
              })
            })
            sent.once('error', () => {
              counts.lost++
              resolve()
            })
            sent.end(body)
          }
          next()
        })
      }

      const key = { ...json, authorization: `Bearer ${serviceKey}` }
      const loads = Array.from({ length: 50 }, (_, i) =>
        i % 5 === 0
          ? load(new URL(internalUrl).port, '/validateToken', key, '{"tokens":["a","b"]}')
          : load(new URL(url).port, '/logout', { token: 'a' }, ''),
      )

      // A request whose first half arrives before the close begins and whose second half arrives afterwards.
      const halves = connect({ host: '127.0.0.1', port: Number(new URL(url).port) })
      halves.write(
        'POST /login HTTP/1.1\r\nHost: auth\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"usern',
      )
      await once(halves, 'connect')
      while (counts.answered < 500 && counts.lost === 0) await new Promise(resolve => setImmediate(resolve))

      const closed = service.close()
      const loginUnderWay = ask(`${url}/login`, { headers: json, body: JSON.stringify(demo) })
      const ready = await ask(`${url}/ready`, { method: 'GET' })
      expectProblem(ready, 503, /closing/)
      expect(ready.headers.get('retry-after')).to.match(/^\d+$/)
      expect((await ask(`${url}/health`, { method: 'GET' })).status).to.equal(200)
      expect((await loginUnderWay).status).to.equal(200)
      await Promise.all(loads)
      halves.write('ame":1}')
      let text = ''
      for await (const part of halves) text += part
      const { status, headers, body } = parseAnswer(text)
      expectProblem({ status, headers, body }, 400, /^username: expected/)
      expect(headers.get('connection')).to.equal('close')
      await closed

      expect(counts).to.include({ lost: 0, closed: 50, answered: counts.sent })
      const refused = await ask(`${url}/health`, { method: 'GET' }).catch((error: Error) => error)
      expect(refused).to.be.instanceOf(Error)
    })

    it('loses nobody who has connected, however many wait to be accepted', async () => {
      const { log } = collectLog('closing')
      const monotonicNow = () => performance.now()
      const options = { name: 'closing', portSetting: 'PORT', log, accessLog: 'off', monotonicNow } as const
      const listener = createListener({ 'GET /health': [health] }, options)
      const port = Number(new URL(await listener.listen(0, '127.0.0.1')).port)
      const clients = Array.from({ length: 100 }, () => connect(port, '127.0.0.1'))
      await Promise.all(clients.map(client => once(client, 'connect')))
      const answers = clients.map(async client => {
        client.write('GET /health HTTP/1.1\r\nHost: auth\r\nConnection: close\r\n\r\n')
        let text = ''
        for await (const part of client) text += part
        return parseAnswer(text).status
      })
      await listener.close({ lameDuckMs: 0, drainMs: 2000 })
      expect(await Promise.all(answers)).to.deep.equal(clients.map(() => 200))
    })
  })
})
