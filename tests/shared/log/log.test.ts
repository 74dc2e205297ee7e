// shared/log/log.ts: one JSON line per event, and never a secret.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Writable } from 'node:stream'
import { expect } from 'chai'
import { AppError } from '../../../shared/http/errors.ts'
import { createListener } from '../../../shared/http/listener.ts'
import { createLog, describeError, type LogFields } from '../../../shared/log/log.ts'
import { demo } from '../../support/credentials.ts'
import { collectLog } from '../../support/log.ts'
import { sendRaw } from '../../support/raw.ts'

const canary = /CANARY/i

/** A log, and the text that it has written so far. */
function openText(level: 'info' | 'debug' = 'info') {
  const chunks: string[] = []
  const stream = new Writable({
    write(chunk, _encoding, done) {
      chunks.push(String(chunk))
      done()
    },
  })
  return { log: createLog({ service: 'auth', level, stream }), text: () => chunks.join('') }
}

/** The one line that the log writes for `event` with `fields`. */
function lineOf(fields?: LogFields, event = 'something happened'): Record<string, unknown> {
  const { log, text } = openText()
  log.info(event, fields)
  expect(text()).to.match(/^[^\n]+\n$/)
  return JSON.parse(text()) as Record<string, unknown>
}

/** An error like those of parsers and drivers, which hold the input in members of their own. */
function errorWithInput(message: string): Error {
  return Object.assign(new Error(message), {
    code: 'E_INPUT',
    body: 'CANARY',
    rawPacket: Buffer.from('CANARY'),
    detail: 'Key (password)=(CANARY)',
    config: { headers: { authorization: 'Bearer CANARY' } },
    toJSON: () => 'CANARY',
  })
}

describe('the log', () => {
  it('writes one JSON line per event: time in UTC, level, service, event and fields', () => {
    const { log, text } = openText('debug')
    for (const level of ['error', 'warn', 'info', 'debug'] as const) log[level]('something happened', { count: 1 })
    const lines = text().trimEnd().split('\n')
    const parsed = lines.map(line => JSON.parse(line) as Record<string, unknown>)
    expect(parsed.map(({ level }) => level)).to.deep.equal(['error', 'warn', 'info', 'debug'])
    for (const { time, level, ...rest } of parsed) {
      expect(rest).to.deep.equal({ service: 'auth', event: 'something happened', count: 1 })
      expect(new Date(String(time)).toISOString()).to.equal(time)
    }
  })

  it('writes nothing below its level', () => {
    const { log, text } = openText('info')
    log.debug('something happened')
    expect(text()).to.equal('')
  })

  it('writes a line for every field, even one that JSON does not know', () => {
    const fields = [{}, undefined, { a: undefined }, { a: Number.NaN }, { a: Symbol('a') }, { a: () => 1 }, { a: null }]
    for (const field of fields) expect(lineOf(field)).to.include({ level: 'info', event: 'something happened' })
  })

  it('lets no field replace its level, time, service or event', () => {
    const spoof = { level: 'debug', time: 'never', service: 'other', event: 'other' }
    for (const fields of [spoof, { ...spoof, message: 'other', fields: spoof, splat: [1] }]) {
      const { time, ...line } = lineOf(fields)
      expect(line).to.include({ level: 'info', service: 'auth', event: 'something happened' })
      expect(new Date(String(time)).toISOString()).to.equal(time)
    }
    expect(lineOf(JSON.parse('{"__proto__":{"level":"debug"}}') as LogFields)).to.include({ level: 'info' })
  })

  const breaks: [what: string, text: string][] = [
    ['CR LF', 'a\r\n{"level":"error"}'],
    ['LF', 'a\nb'],
    ['CR', 'a\rb'],
    ['VT and FF', 'a\v\fb'],
    ['NUL', 'a\0b'],
    ['BS', 'a\b\b\bb'],
    ['ESC', '\x1b[2J\x1b]0;title\x07\x1b[31mred'],
    ['DEL', 'a\x7fb'],
    ['CSI in one byte', 'a\x9b2Jb'],
    ['NEL', 'a\x85b'],
    ['U+2028 and U+2029', 'a\u2028b\u2029c'],
    ['quotes', '","level":"error'],
    ['half a surrogate pair', 'a\ud83db'],
    ['percent signs', '%s %d %j %o'],
  ]
  const controls = /[^\P{Cc}\n]|[\u2028\u2029]/u
  for (const [what, value] of breaks) {
    it(`keeps ${what} in a field, a name or an event on one line, escaped`, () => {
      const { log, text } = openText()
      log.info('something happened', {
        value,
        nested: { deep: [value] },
        [`name ${value}`]: 1,
        error: new Error(value),
      })
      log.info(value)
      expect(text()).not.to.match(controls)
      const lines = text().trimEnd().split('\n')
      expect(lines).to.have.length(2)
      const [withFields, withEvent] = lines.map(line => JSON.parse(line) as Record<string, unknown>)
      expect(withFields).to.deep.include({ value, nested: { deep: [value] }, [`name ${value}`]: 1, level: 'info' })
      expect(withFields?.['error']).to.include({ message: value })
      expect(withEvent).to.include({ event: value, level: 'info' })
    })
  }

  it('caps long strings, wherever they are', () => {
    const long = 'a'.repeat(100_000)
    const capped = `${'a'.repeat(1000)}…`
    const line = lineOf({ long, nested: { deep: [long] }, error: new Error(long, { cause: new Error(long) }) }, long)
    expect(line).to.deep.include({ event: capped, long: capped, nested: { deep: [capped] } })
    expect(line['error']).to.deep.equal({
      name: 'Error',
      message: capped,
      cause: { name: 'Error', message: capped },
    })
  })

  describe('of an error', () => {
    it('writes its name, code and message, and those of its causes, and no other member', () => {
      const error = new AppError('unavailable', 'outer', { cause: errorWithInput('inner') })
      const described = {
        name: 'AppError',
        code: 'unavailable',
        message: 'outer',
        cause: { name: 'Error', code: 'E_INPUT', message: 'inner' },
      }
      expect(describeError(error)).to.deep.equal(described)
      expect(lineOf({ error })['error']).to.deep.equal(described)
      expect(lineOf({ nested: [{ error }] })['nested']).to.deep.equal([{ error: described }])
      expect(JSON.stringify(lineOf({ error: errorWithInput('alone') }))).not.to.match(canary)
    })

    it('writes no member of an AggregateError, and a code only if it is a string', () => {
      const many = new AggregateError([errorWithInput('one')], 'many')
      expect(lineOf({ error: many })['error']).to.deep.equal({ name: 'AggregateError', message: 'many' })
      const error = Object.assign(new Error('odd'), { code: { body: 'CANARY' } })
      expect(lineOf({ error })['error']).to.deep.equal({ name: 'Error', message: 'odd' })
    })

    it('writes only the type of a cause that is not an error', () => {
      for (const cause of ['CANARY', { body: 'CANARY' }, ['CANARY'], null, 1]) {
        const line = lineOf({ error: new Error('outer', { cause }) })
        expect(line['error']).to.deep.equal({ name: 'Error', message: 'outer', cause: { name: typeof cause } })
      }
    })

    it('terminates if an error is its own cause', () => {
      const error = new Error('round')
      error.cause = new Error('and', { cause: error })
      expect(lineOf({ error })['error']).to.deep.include({ name: 'Error', message: 'round' })
    })
  })

  it('of a failing handler has the error and its stack and no other member, and the client learns nothing', async () => {
    const { log, lines } = collectLog('auth')
    const thrown = [
      errorWithInput('handler failed'),
      new AppError('unavailable', 'Try again.', { cause: errorWithInput('store failed') }),
      Object.assign(errorWithInput('not for you'), { status: 404, expose: true, headers: { 'x-canary': 'CANARY' } }),
      { body: 'CANARY', status: 200 },
      'CANARY',
      null,
      undefined,
    ]
    const listener = createListener(
      {
        'GET /:index': [
          ctx => {
            throw thrown[Number(ctx['params'].index)]
          },
        ],
      },
      { name: 'test', portSetting: 'PORT', log, accessLog: 'off', monotonicNow: () => 0 },
    )
    const url = await listener.listen(0, '127.0.0.1')
    for (let i = 0; i < thrown.length; i++) {
      const answer = await fetch(`${url}/${i}`, { headers: { connection: 'close', authorization: 'Bearer CANARY' } })
      expect(answer.status, `thrown ${i}`).to.equal(i === 1 ? 503 : 500)
      expect(answer.headers.get('cache-control')).to.equal('no-store')
      expect(answer.headers.get('x-request-id')).to.be.a('string')
      expect([...answer.headers].join()).not.to.match(canary)
      const body = (await answer.json()) as Record<string, unknown>
      expect(body['detail']).to.equal(i === 1 ? 'Try again.' : 'An internal error occurred.')
      expect(body).to.have.all.keys('type', 'title', 'status', 'detail', 'error', 'requestId')
    }
    await listener.close({ lameDuckMs: 0, drainMs: 1000 })
    expect(JSON.stringify(lines)).not.to.match(canary)
    expect(lines[0]).to.deep.include({
      level: 'error',
      event: 'request_failed',
      code: 'internal',
      cause: { name: 'Error', code: 'E_INPUT', message: 'handler failed' },
    })
    expect(lines[0]?.['stack']).to.match(/^Error: handler failed\n\s+at /)
    expect(lines[1]).to.deep.include({
      level: 'warn',
      code: 'unavailable',
      cause: { name: 'Error', code: 'E_INPUT', message: 'store failed' },
    })
  })

  describe('whose reader has disconnected', () => {
    it('does not end the process, is reported once on stderr, and keeps no lines in memory', async () => {
      // If the log kept the lines, 100 000 lines of 1 KB would not fit in 64 MB.
      const script = `
        import { createLog } from './shared/log/log.ts'
        const log = createLog({ service: 'child', level: 'info', stream: process.stdout })
        process.once('message', async () => {
          for (let i = 0; i < 100_000; i++) {
            log.info('something happened', { i, text: String(i).padEnd(1000, 'a'), error: new Error('an error') })
            if (i % 100 === 0) await new Promise(resolve => setImmediate(resolve))
          }
          process.send('alive')
          process.disconnect()
        })
        log.info('something happened')
      `
      const child = spawn(process.execPath, ['--max-old-space-size=64', '--input-type=module', '-e', script], {
        cwd: new URL('../../..', import.meta.url),
        stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      })
      let stderr = ''
      child.stderr?.on('data', chunk => {
        stderr = (stderr + chunk).slice(0, 1000)
      })
      const ended = once(child, 'close')
      const messages: unknown[] = []
      child.on('message', message => messages.push(message))
      await once(child.stdout as NonNullable<typeof child.stdout>, 'data')
      child.stdout?.destroy()
      child.send('go')
      const [code] = await ended
      const told = 'The reader of the log of child has gone (EPIPE): no more lines are written.\n'
      expect({ code, messages, stderr }).to.deep.equal({ code: 0, messages: ['alive'], stderr: told })
    })

    it('receives no more lines', async () => {
      let writes = 0
      const stream = new Writable({
        write(_chunk, _encoding, done) {
          writes++
          done(Object.assign(new Error('the reader is gone'), { code: 'EPIPE' }))
        },
      })
      const closed = once(stream, 'close').catch(() => {})
      const complaints: string[] = []
      const complain = (sentence: string) => void complaints.push(sentence)
      const log = createLog({ service: 'auth', level: 'info', stream, complain })
      log.info('something happened')
      await closed
      for (let i = 0; i < 10; i++) log.info('something happened')
      expect(writes).to.equal(1)
      expect(complaints).to.deep.equal(['The reader of the log of auth has gone (EPIPE): no more lines are written.'])
    })
  })
})

describe('the log of Auth', () => {
  const password = 'CANARY-PW-7d1f0a'
  const serviceKey = 'CANARY-KEY-0123456789-abcdefghijklmnop'
  const previousKey = 'CANARY-OLD-KEY-0123456789-abcdefghijklm'
  const json = { 'content-type': 'application/json' }
  const form = { 'content-type': 'application/x-www-form-urlencoded' }
  let output = ''
  const tokens: string[] = []

  before('a run of everything that carries a secret, on the real process', async () => {
    const settings = {
      DEMO_PASSWORD: password,
      SERVICE_KEY: serviceKey,
      ADMIN_KEY: `${serviceKey}-admin`,
      SERVICE_KEY_PREVIOUS: previousKey,
    }
    const listeners = {
      AUTH_PORT: '0',
      AUTH_INTERNAL_PORT: '0',
      LOG_LEVEL: 'debug',
      ACCESS_LOG: 'all',
      NODE_ENV: 'test',
    }
    const child = spawn(process.execPath, ['services/auth/main.ts'], {
      cwd: new URL('../../..', import.meta.url),
      env: { ...process.env, ...settings, ...listeners },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const ended = once(child, 'close')
    const listening = new Promise<LogFields>(resolve => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', chunk => {
          output += chunk
          const line = /^.*"event":"listening".*$/m.exec(output)?.[0]
          if (line) resolve(JSON.parse(line) as LogFields)
        })
      }
    })
    try {
      const ready = await Promise.race([listening, ended])
      if (Array.isArray(ready)) throw new Error(`Auth ended with ${ready[0]}: ${output}`)
      await useSecrets(String(ready['auth']), String(ready['authInternal']))
      child.kill('SIGTERM')
      const [code] = await ended
      expect(code, output).to.equal(0)
    } finally {
      child.kill('SIGKILL')
    }
  })

  /** Everything a client can do with a secret, correctly and incorrectly. */
  async function useSecrets(auth: string, authInternal: string): Promise<void> {
    async function post(url: string, headers: Record<string, string>, body = ''): Promise<string> {
      const answer = await fetch(url, { method: 'POST', headers: { connection: 'close', ...headers }, body })
      const text = await answer.text()
      if (answer.status >= 400) expect(text).not.to.match(canary)
      return text
    }
    const login = (body: string, headers: Record<string, string> = json) => post(`${auth}/login`, headers, body)
    async function logIn(): Promise<string> {
      const { token } = JSON.parse(await login(JSON.stringify({ ...demo, password }))) as { token: string }
      tokens.push(token)
      return token
    }
    const logout = (headers: Record<string, string>, query = '') => post(`${auth}/logout${query}`, headers)
    const validate = (body: string, key = serviceKey) =>
      post(`${authInternal}/validateToken`, { ...json, authorization: `Bearer ${key}` }, body)

    const [first, second, third] = [await logIn(), await logIn(), await logIn()]
    const { token } = JSON.parse(await login(new URLSearchParams({ ...demo, password }).toString(), form)) as {
      token: string
    }
    tokens.push(token)
    await login(JSON.stringify({ ...demo, password: `${password}-wrong` }))
    await login(JSON.stringify({ username: password, password }))
    await login(`{"username":"${demo.username}","password":"${password}" oops}`)
    await login(`{"username":"${demo.username}","password":"${password}","__proto__":{"${password}":1}}`)
    await login(JSON.stringify({ ...demo, password: [password] }))
    await login(JSON.stringify({ ...demo, password, passwordAgain: password }))
    await login(JSON.stringify({ ...demo, password: password.repeat(2000) }))
    await login(JSON.stringify({ ...demo, password }), form)
    await login(JSON.stringify({ ...demo, password }), { 'content-type': `text/${password}` })
    await login(JSON.stringify({ ...demo, password }), { ...json, 'content-encoding': password })
    await login(`username=${password}&password[${password}]=${password}`, form)
    await validate(JSON.stringify({ token: first }))
    await validate(JSON.stringify({ tokens: [first, second, password, `${first}x`] }), previousKey)
    await validate(JSON.stringify({ tokens: [first, { token: second }] }))
    await validate(`{"token":"${first}"`)
    await validate(JSON.stringify({ token: first }), `${serviceKey}-wrong`)
    await validate(JSON.stringify({ token: first }), second)
    await logout({ token: first })
    await validate(JSON.stringify({ token: first }))
    await logout({ authorization: `Bearer ${second}` })
    await logout({ authorization: `Bearer ${second}` })
    await logout({ authorization: `Bearer ${third}`, token: third })
    await logout({ authorization: `Bearer ${third} ${password}` })
    await logout({ authorization: `Basic ${password}`, cookie: `token=${third}` })
    await logout({ authorization: `Bearer ${serviceKey}` })
    await logout({}, `?token=${third}&password=${password}`)
    const malformed = [`Authorization: Bearer ${third}\r\n ${password}`, `X-A: ${password.repeat(2000)}`]
    for (const header of malformed) {
      await sendRaw(auth, `POST /logout HTTP/1.1\r\nHost: auth\r\n${header}\r\n\r\n`, 5000)
    }
    await sendRaw(auth, `${password} ${third}\r\n\r\n`, 5000)
    // A client that disconnects in the middle of its body.
    const half = `POST /login HTTP/1.1\r\nHost: auth\r\nContent-Length: 500\r\nContent-Type: application/json\r\n\r\n`
    await sendRaw(auth, `${half}{"password":"${password}",`, 100)
  }

  const lines = () =>
    output
      .trimEnd()
      .split('\n')
      .map(line => JSON.parse(line) as Record<string, unknown>)

  it('consists of JSON lines only, each with its time, level, service and event', () => {
    for (const line of lines()) {
      expect(line).to.include.all.keys('time', 'level', 'service', 'event')
      expect(line['level']).to.be.oneOf(['error', 'warn', 'info', 'debug'])
      expect(line['service']).to.equal('auth')
    }
  })

  it('reports every log-in, token and request', () => {
    const events = new Set(lines().map(({ event }) => event))
    const expected = ['login_succeeded', 'login_failed', 'token_issued', 'token_slid', 'token_refused', 'token_revoked']
    expect([...events]).to.include.members([...expected, 'request', 'listening', 'closing'])
    const statuses = lines().flatMap(({ event, status }) => (event === 'request' ? [status] : []))
    expect(statuses).to.include.members([200, 204, 400, 401, 413, 415])
    expect(lines().filter(({ level }) => level === 'error')).to.deep.equal([])
  })

  it('contains no password, token or key, right or wrong, well-formed or not', () => {
    expect(tokens).to.have.length(4)
    for (const line of output.split('\n')) {
      expect(line).not.to.match(canary)
      for (const token of tokens) expect(line).not.to.include(token.slice(7))
    }
  })

  it('contains no other credentials: Authorization, cookie, hash', () => {
    for (const line of output.split('\n'))
      expect(line).not.to.match(/authorization|bearer|basic|cookie|bcrypt|\$2[aby]\$/i)
  })
})
