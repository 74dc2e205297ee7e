// Routes, requests that are not HTTP/1.1, and the headers of every response, on the real listeners of Auth.
import { expect } from 'chai'
import {
  type Answer,
  ask,
  bytesOf,
  credentials,
  expectHouseHeaders,
  expectProblem,
  json,
  quietMs,
  startHttpSuite,
} from '../../support/httpSuite.ts'
import { type RawAnswer, sendRaw } from '../../support/raw.ts'

describe('HTTP', () => {
  const suite = startHttpSuite()
  const { login, validate, send, logIn } = suite

  describe('a route', () => {
    const paths = [
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

    it('that does not exist is 404 for every method', async () => {
      for (const method of ['PUT', 'DELETE', 'OPTIONS', 'PROPFIND', 'TRACE', 'SEARCH']) {
        expectProblem(await send(bytesOf(`${method} /nowhere HTTP/1.1`)), 404, /nothing at this path/)
      }
    })

    it('does not depend on the query', async () => {
      expectProblem(await ask(`${suite.auth.url}/login?username=a&password=b`), 415, /Content-Type/)
      expect((await ask(`${suite.auth.url}/health?x=1`, { method: 'GET' })).status).to.equal(200)
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

      it(`that does not support a method is 405 and lists those it supports: ${where}`, async () => {
        for (const method of methods.filter(method => !allowed.includes(method))) {
          const answer = await sendRaw(suite.auth[listener], bytesOf(`${method} ${path} HTTP/1.1`), quietMs)
          expect(allowOf(answer), method).to.deep.equal(allowed)
          if (method === 'HEAD') expect(answer).to.include({ status: 405, body: '' })
          else expectProblem(answer, 405, /does not support this method\. The header Allow lists/)
        }
      })

      it(`answers OPTIONS with the methods it supports: ${where}`, async () => {
        const answer = await ask(`${suite.auth[listener]}${path}`, { method: 'OPTIONS' })
        expect(answer.status).to.equal(200)
        expect(allowOf(answer)).to.deep.equal(allowed)
        expectHouseHeaders(answer)
      })

      if (!allowed.includes('HEAD')) continue
      it(`answers HEAD as GET, without a body: ${where}`, async () => {
        const [head, get] = await Promise.all(
          ['HEAD', 'GET'].map(method => sendRaw(suite.auth[listener], bytesOf(`${method} ${path} HTTP/1.1`), quietMs)),
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

    it('is 400 for an unknown method, or one in lower case', async () => {
      for (const method of ['FOO', 'post', 'Post', 'GETS', 'PO ST']) {
        expectProblem(await send(bytesOf(`${method} /login HTTP/1.1`)), 400, /well-formed HTTP/)
      }
    })

    it('refuses TRACE and echoes nothing', async () => {
      const { text, status } = await send(bytesOf('TRACE /health HTTP/1.1', ['Authorization: Bearer CANARY']))
      expect(status).to.equal(405)
      expect(text).not.to.include('CANARY')
    })

    it('refuses CONNECT and closes the connection', async () => {
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

  describe('a request that is not HTTP/1.1', () => {
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
      ['the encoding identity', [...post, 'Transfer-Encoding: identity'], '0\r\n\r\n'],
      ['two Transfer-Encodings', [...post, 'Transfer-Encoding: chunked', 'Transfer-Encoding: identity'], '0\r\n\r\n'],
      ['a blank before the colon', [...post, 'Transfer-Encoding : chunked'], '0\r\n\r\n'],
      ['a chunk size that is not a number', [...post, 'Transfer-Encoding: chunked'], 'zz\r\n{}\r\n0\r\n\r\n'],
      ['a chunk longer than its size', [...post, 'Transfer-Encoding: chunked'], '2\r\n{}XX\r\n0\r\n\r\n'],
      ['a bare LF after a chunk size', [...post, 'Transfer-Encoding: chunked'], '2;a\n{}\r\n0\r\n\r\n'],
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
      it(`is 400, and no second request is read after it: ${what}`, async () => {
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
    it('is 415 if the body has a transfer coding other than chunked', async () => {
      const lines = ['Content-Type: application/json', 'Transfer-Encoding: gzip, chunked']
      const answer = await send(bytesOf('POST /login HTTP/1.1', lines).concat('2\r\n{}\r\n0\r\n\r\n'))
      expectProblem(answer, 415, /chunked/)
    })

    for (const [what, lines] of large) {
      it(`is 431 if ${what} makes the headers larger than 16 KB`, async () => {
        expectProblem(await send(bytesOf('GET /health HTTP/1.1', lines)), 431, /headers are too large/)
      })
    }
    it('is 431 if the path is longer than 16 KB', async () => {
      expectProblem(await send(bytesOf(`GET /${'a'.repeat(17_000)} HTTP/1.1`)), 431, /headers are too large/)
    })

    it('is 400 if a token contains a CR or an LF, and the token is not revoked', async () => {
      const token = await logIn()
      for (const ill of [`${token}\r\n x`, `${token}\rX-A: b`, `${token}\nX-A: b`, `\r\n ${token}`]) {
        const answer = await send(bytesOf('POST /logout HTTP/1.1', [`Authorization: Bearer ${ill}`]))
        expectProblem(answer, 400, /well-formed HTTP/)
        expect(answer.text).not.to.include(token)
      }
      const encoded = { headers: { authorization: `Bearer ${token}%0d%0aX-A:%20b` } }
      expectProblem(await ask(`${suite.auth.url}/logout`, encoded), 401, /missing, unknown, expired/, 'invalid_token')
      expect((await validate(JSON.stringify({ token }))).body).to.include('"authenticated":true')
    })

    it('affects only its own connection', async () => {
      const body = JSON.stringify(credentials)
      const first = ['POST /login HTTP/1.1', 'Host: auth', 'Content-Type: application/json']
      const inFlight = [...first, `Content-Length: ${body.length}`, '', body].join('\r\n')
      await Promise.all(Array.from({ length: 5 }, () => send(`${inFlight}\0\0garbage\r\n\r\n`)))
      expect((await ask(`${suite.auth.url}/health`, { method: 'GET' })).status).to.equal(200)
    })
  })

  describe('every answer', () => {
    const get = (path: string) => ask(`${suite.auth.url}${path}`, { method: 'GET' })
    const answers: [what: string, status: number, ask: () => Promise<Answer | RawAnswer>][] = [
      ['health', 200, () => get('/health')],
      ['ready', 200, () => get('/ready')],
      ['log in', 200, () => login(JSON.stringify(credentials))],
      ['log out', 204, async () => ask(`${suite.auth.url}/logout`, { headers: { token: await logIn() } })],
      ['log out without a token', 401, () => ask(`${suite.auth.url}/logout`)],
      ['a wrong password', 401, () => login(JSON.stringify({ ...credentials, password: 'wrong' }))],
      ['a bad body', 400, () => login('{')],
      ['an unknown path', 404, () => get('/nowhere')],
      ['an unsupported method', 405, () => get('/login')],
      ['a large body', 413, () => login('a'.repeat(20_000))],
      ['an unsupported content type', 415, () => login('{}', {})],
      ['OPTIONS', 200, () => ask(`${suite.auth.url}/login`, { method: 'OPTIONS' })],
      ['HEAD', 200, () => ask(`${suite.auth.url}/health`, { method: 'HEAD' })],
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

    it('has them even if the Expect header is unknown', async () => {
      const { status, ...answer } = await send(bytesOf('GET /health HTTP/1.1', ['Expect: miracles']))
      expect(status).to.be.oneOf([200, 417])
      expectHouseHeaders({ status, ...answer })
    })

    it('is 401 with a challenge that names an error only if a token was sent', async () => {
      const without = await ask(`${suite.auth.url}/logout`)
      expectProblem(without, 401, /Authorization: Bearer <token>/, 'invalid_token')
      expect(without.headers.get('www-authenticate')).to.equal('Bearer realm="latchkey"')
      const withOne = await ask(`${suite.auth.url}/logout`, { headers: { authorization: 'Bearer not a token' } })
      expectProblem(withOne, 401, /missing, unknown, expired or revoked/, 'invalid_token')
      expect(withOne.headers.get('www-authenticate')).to.equal('Bearer realm="latchkey", error="invalid_token"')
    })

    for (const id of ['a', 'A.b_c-9', '0'.repeat(64), 'b3f0c2d4-0000-4000-8000-000000000000']) {
      it(`repeats a well-formed X-Request-Id: ${id}`, async () => {
        const ok = await ask(`${suite.auth.url}/health`, { method: 'GET', headers: { 'x-request-id': id } })
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
      it(`replaces a malformed X-Request-Id: ${id.length > 20 ? `${id.length} characters` : `"${id}"`}`, async () => {
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
})
