// Bad bodies: each gets a 4xx that says what is expected and reveals nothing.
import { once } from 'node:events'
import { connect } from 'node:net'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'
import { expect } from 'chai'
import fc from 'fast-check'
import { demo, serviceKey } from '../../support/credentials.ts'
import {
  ask,
  bytesOf,
  credentials,
  expectProblem,
  form,
  json,
  megabyte,
  quietMs,
  startHttpSuite,
} from '../../support/httpSuite.ts'
import { parseAnswer } from '../../support/raw.ts'

describe('request bodies', () => {
  const suite = startHttpSuite()
  const { login, validate, send } = suite

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
      ['an array around the expected object', `[${JSON.stringify(credentials)}]`, /expected object/],
      ['deeply nested arrays', '['.repeat(8000) + ']'.repeat(8000), /expected object/],
      ['deeply nested objects', '{"username":'.repeat(1200) + '1'.padEnd(1201, '}'), /username: expected a username/],
      ['an unknown member', `{"username":"a",${password},"role":"admin"}`, /role/],
      ['a member named like a column', `{"username":"a",${password},"passwordHash":"x"}`, /passwordHash/],
      ['the member constructor', `{"username":"a",${password},"constructor":{"prototype":{"x":1}}}`, /constructor/],
      ['the member prototype', `{"username":"a",${password},"prototype":{"x":1}}`, /prototype/],
      ['the member toString', `{"username":"a",${password},"toString":"x"}`, /toString/],
      ['the member __proto__', `{"username":"a",${password},"__proto__":{"x":1}}`, /./],
      ['the member __proto__ that is no object', `{"username":"a",${password},"__proto__":1}`, /./],
      ['the member __proto__ in disguise', `{"username":"a",${password},"\\u005f_proto__":{"x":1}}`, /./],
      ['__proto__ inside a member', `{"username":{"__proto__":{"x":1}},${password}}`, /./],
    ]
    for (const [what, body, detail] of refused) {
      it(`is 400 if it is or has ${what}`, async () => {
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
      ['a number too large for a double', '1e999'],
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

      it(`is 400 without ${member}, and names what is expected`, async () => {
        expectProblem(await login(`{${other}}`), 400, new RegExp(`^${member}: expected a ${member}, as a string(;|$)`))
      })
      for (const [what, value] of values) {
        it(`is 400 if ${member} is ${what}`, async () => {
          expectProblem(await withValue(value), 400, new RegExp(`^${member}: expected a ${member}, as a string(;|$)`))
        })
      }
      it(`is 400 if ${member} is empty or longer than 256 characters`, async () => {
        for (const value of ['', 'a'.repeat(257), 'a'.repeat(10_000), '😀'.repeat(257)]) {
          expectProblem(
            await withValue(JSON.stringify(value)),
            400,
            new RegExp(`^${member}: .* of 1 to 256 characters`),
          )
        }
      })
      it(`is 400 if ${member} has half a surrogate pair`, async () => {
        for (const value of ['\ud83d', '\ude00', 'a\ud83db', '\ude00\ud83d']) {
          expectProblem(await withValue(JSON.stringify(value)), 400, new RegExp(`^${member}: .* valid Unicode`))
        }
      })
      it(`is accepted if ${member} has 256 characters outside the BMP`, async () => {
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
    it('treats __proto__, constructor, toString and the like as unknown usernames: 401', async () => {
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

    it('is 400 if a member is anything but a string', async () => {
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

    it('may begin with a byte order mark, on /validateToken too', async () => {
      expect((await login(`\ufeff${JSON.stringify(credentials)}`)).status).to.equal(200)
      expect((await validate('\ufeff{"token":"a"}')).body).to.equal('{"authenticated":false}')
    })

    it('is 413 before its first byte if Content-Length is above the limit', async () => {
      for (const [url, path] of [
        [suite.auth.url, '/login'],
        [suite.auth.internalUrl, '/validateToken'],
      ] as const) {
        const { hostname, port } = new URL(url)
        const socket = connect({ host: hostname, port: Number(port) })
        socket.setTimeout(quietMs, () => socket.destroy(new Error('the server waits for the body')))
        const lines = [
          'Content-Type: application/json',
          `Authorization: Bearer ${serviceKey}`,
          'Content-Length: 600000',
        ]
        socket.write(`POST ${path} HTTP/1.1\r\nHost: auth\r\n${lines.join('\r\n')}\r\n\r\n`)
        try {
          const [answer] = (await once(socket, 'data')) as [Buffer]
          expect(answer.toString()).to.match(/^HTTP\/1\.1 413 /)
        } finally {
          socket.destroy()
        }
      }
    })

    it('is 413 with a readable problem if it is 50 MB, with or without Content-Length', async () => {
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
      ['announced by Content-Length', `Content-Length: ${50 * megabyte}`, chunk => chunk, ''],
      ['in chunks', 'Transfer-Encoding: chunked', chunk => `${chunk.length.toString(16)}\r\n${chunk}\r\n`, '0\r\n\r\n'],
    ]
    for (const [how, header, frame, end] of framings) {
      it(`of 50 MB, ${how}, is 413 for a client that reads only after sending, and the connection stays open`, async () => {
        const { hostname, port } = new URL(suite.auth.url)
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

    it('is 400 if it nests arrays 100 000 deep', async () => {
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
      ['gzip', 'intact', gzipSync(plain)],
      ['gzip', 'not actually compressed', plain],
      ['gzip', 'inflating to 20 MB', gzipSync(bomb)],
      ['br', 'intact', brotliCompressSync(plain)],
      ['br', 'not actually compressed', plain],
      ['deflate', 'intact', deflateSync(plain)],
      ['GZIP', 'in capitals', gzipSync(plain)],
      ['gzip, gzip', 'twice', gzipSync(gzipSync(plain))],
      ['identity, gzip', 'behind another', gzipSync(plain)],
      ['zstd', 'not actually compressed', plain],
      ['compress', 'not actually compressed', plain],
      ['anything', 'unknown', plain],
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
      it(`is 415 as Content-Type ${type}, and names the accepted types`, async () => {
        const answer = await login(JSON.stringify(credentials), { 'content-type': type })
        expectProblem(answer, 415, /application\/json or application\/x-www-form-urlencoded, in UTF-8/)
      })
    }

    it('is 415 without a Content-Type', async () => {
      const body = JSON.stringify(credentials)
      const { text, ...answer } = await send(bytesOf('POST /login HTTP/1.1', [`Content-Length: ${body.length}`], body))
      expectProblem(answer, 415, /application\/json/)
      expect(text).not.to.include('CANARY')
      expectProblem(await ask(`${suite.auth.url}/login`), 415, /application\/json/)
    })

    it('is 415 as a form if only JSON is accepted', async () => {
      const answer = await validate('token=a', form)
      expectProblem(answer, 415, /^Send the body as Content-Type: application\/json, in UTF-8\.$/)
    })

    it('is accepted under every spelling of its type', async () => {
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

    it('is 400 with an unknown member, however many precede it', async () => {
      expectProblem(await login(`${pair}${'&'.repeat(1500)}role=admin`, form), 400, /role/)
    })

    it('is 400 if it is not UTF-8, so that different bytes are never the same password', async () => {
      for (const bytes of ['%ff', '%c3', '%ed%a0%80', '%c0%af']) {
        expectProblem(await login(`username=a&password=${bytes}`, form), 400, /./)
      }
    })

    it('is 400 if it is actually JSON, and the response does not repeat it', async () => {
      for (const username of ['a', demo.username]) {
        expectProblem(await login(JSON.stringify({ username, password: credentials.password }), form), 400, /username/)
        expectProblem(await login(JSON.stringify({ password: credentials.password, username }), form), 400, /username/)
      }
    })
  })
})
