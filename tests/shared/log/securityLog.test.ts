// The security log: exactly the events that an auditor needs, with user and address, in a file that rotates; never a
// secret.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { expect } from 'chai'
import { type AuthEvent, logEvents } from '../../../services/auth/observability/events.ts'
import { instrument } from '../../../services/auth/observability/instrument.ts'
import { runAsCaller } from '../../../services/auth/observability/requestContext.ts'
import { type DependencyEvent, watchMailServer } from '../../../services/auth/observability/storeHealth.ts'
import { createLog } from '../../../shared/log/log.ts'
import { flushOutput } from '../../../shared/log/output.ts'
import { openSecurityFile } from '../../../shared/log/securityFile.ts'
import { adminKey, serviceKey } from '../../support/credentials.ts'
import type { LogLine } from '../../support/log.ts'
import { closeMailServers, type MailServer, startMailServer } from '../../support/mailServer.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { until } from '../../support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'latchkey-security-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const signingKey = { kty: 'oct', alg: 'HS256', kid: 'test', k: 'CANARYkey0123456789012345678901234567890123' }
const formats = {
  opaque: {},
  jwt: { TOKEN_FORMAT: 'jwt', TOKEN_KEYS: JSON.stringify({ keys: [signingKey] }) },
}

/** The lines of a file of the log. */
function linesOf(path: string): LogLine[] {
  const text = readFileSync(path, 'utf8')
  return text === ''
    ? []
    : text
        .trimEnd()
        .split('\n')
        .map(line => JSON.parse(line) as LogLine)
}

for (const [format, settings] of Object.entries(formats)) {
  describe(`the security log, with ${format} tokens`, () => {
    const path = join(folder, format, 'security.log')
    const username = 'ann@example.com'
    const [password, second, third] = ['CANARY-PW-one-8153', 'CANARY-PW-two-2749', 'CANARY-PW-three-6620']
    const secrets: string[] = []
    let file: Writable
    let mails: MailServer
    let auth: Awaited<ReturnType<typeof startAuth>>
    let userId: string
    let calls = 0

    before(async () => {
      mails = await startMailServer()
      file = await openSecurityFile({ path, maxBytes: 10_000_000, keepDays: 1 })
      const env = {
        SMTP_URL: mails.url,
        MAIL_FROM: 'latchkey@example.com',
        EMAIL_CONFIRMATION: 'required',
        ACCESS_LOG: 'all',
        LOGIN_LIMIT_PER_ADDRESS: '10',
        ...settings,
      }
      auth = await startAuth({ env, securityStream: file })
      userId = String((auth.lines.find(({ event }) => event === 'user_registered') as LogLine)['userId'])
    })

    after(async () => {
      await closeServers()
      await closeMailServers()
    })

    interface Call {
      method?: string
      path: string
      bearer?: string | undefined
      body?: unknown
      internal?: boolean
    }

    /** Sends the request and checks its status and the names of the security events it caused, in order. */
    async function call(
      { method = 'POST', path, bearer, body, internal = false }: Call,
      status: number,
      expected: string[],
    ) {
      const requestId = `call-${++calls}`
      const headers = new Headers({
        connection: 'close',
        'x-request-id': requestId,
        'content-type': 'application/json',
      })
      if (bearer !== undefined) headers.set('authorization', `Bearer ${bearer}`)
      const content = body === undefined ? {} : { body: JSON.stringify(body) }
      const answer = await fetch(`${internal ? auth.internalUrl : auth.url}${path}`, { method, headers, ...content })
      const text = await answer.text()
      expect(answer.status, text).to.equal(status)
      const mine = () => auth.lines.filter(line => line['channel'] === 'security' && line['requestId'] === requestId)
      await until(() => mine().length >= expected.length, 5000).catch(() => {})
      expect(mine().map(({ event }) => event)).to.deep.equal(expected)
      for (const line of mine()) {
        expect(line).to.include({ service: 'auth', address: '127.0.0.1' })
        expect(line.level).to.be.oneOf(['info', 'warn'])
        expect(new Date(String(line['time'])).toISOString()).to.equal(line['time'])
      }
      const parsed = (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>
      if (typeof parsed['token'] === 'string') secrets.push(parsed['token'])
      return { answer: parsed, told: mine() }
    }

    const logIn = async (password: string) => {
      const { answer, told } = await call({ path: '/login', body: { username, password } }, 200, [
        'login_succeeded',
        'token_issued',
      ])
      expect(told[0]).to.include({ userId })
      expect(told[1]).to.include({ userId, kind: 'sliding', purpose: null })
      expect(told[1]?.['tokenId']).to.be.a('string')
      return { token: String(answer['token']), tokenId: told[1]?.['tokenId'] }
    }

    async function linkTo(address: string): Promise<string> {
      const { token } = await mails.next(address)
      secrets.push(token)
      return token
    }

    const admin = (method: string, path: string, body?: unknown) => ({
      method,
      path,
      body,
      bearer: adminKey,
      internal: true,
    })

    it('reports a registration and the link that confirms it', async () => {
      const { told } = await call({ path: '/users', body: { username, password } }, 202, [
        'user_registered',
        'token_issued',
      ])
      userId = String(told[0]?.['userId'])
      expect(told[1]).to.include({ userId, kind: 'single-use', purpose: 'confirm' })
      const token = await linkTo(username)
      const confirmed = await call({ path: '/users/confirm', body: { token } }, 204, ['user_confirmed'])
      expect(confirmed.told[0]).to.include({ userId })
    })

    it('reports a failed log-in with its reason, which the client does not learn', async () => {
      const wrong = { username, password: `${password}-wrong` }
      expect((await call({ path: '/login', body: wrong }, 401, ['login_failed'])).told[0]).to.include({
        userId,
        reason: 'wrong_password',
      })
      const unknown = { username: 'CANARY-typed-password', password }
      expect((await call({ path: '/login', body: unknown }, 401, ['login_failed'])).told[0]).to.include({
        userId: null,
        reason: 'unknown_user',
      })
    })

    it('reports a session from log-in to log-out, and its use afterwards', async () => {
      const { token, tokenId } = await logIn(password)
      await call({ method: 'GET', path: '/users/me', bearer: token }, 200, [])
      const renewed = await call({ path: '/renew', bearer: token }, 200, ['token_renewed'])
      expect(renewed.told[0]).to.include({ tokenId, userId })
      const ended = await call({ path: '/logout', bearer: String(renewed.answer['token']) }, 204, ['token_revoked'])
      expect(ended.told[0]).to.include({ tokenId, userId })
      const refused = await call({ method: 'GET', path: '/users/me', bearer: token }, 401, ['token_refused'])
      expect(refused.told[0]).to.include({ tokenId })
      expect(refused.told[0]?.['reason']).to.be.a('string')
    })

    it('reports a password reset and a password change', async () => {
      const asked = await call({ path: '/password/forgot', body: { username } }, 202, ['token_issued'])
      expect(asked.told[0]).to.include({ userId, purpose: 'reset' })
      const body = { token: await linkTo(username), password: second }
      const reset = await call({ path: '/password/reset', body }, 204, ['password_changed', 'sessions_revoked'])
      expect(reset.told[0]).to.include({ userId, proof: 'reset_token' })
      expect(reset.told[1]).to.include({ userId, keep: null })
      const { token: bearer, tokenId: keep } = await logIn(second)
      const change = (currentPassword: string) => ({
        method: 'PATCH',
        path: '/users/me',
        bearer,
        body: { currentPassword, password: third },
      })
      expect((await call(change(password), 401, ['password_refused'])).told[0]).to.include({ userId })
      const changed = await call(change(second), 200, ['password_changed', 'sessions_revoked'])
      expect(changed.told[0]).to.include({ userId, proof: 'password' })
      expect(changed.told[1]).to.include({ userId, keep })
    })

    it('reports everything that an operator does with the admin key, even if it fails', async () => {
      const act = async (request: Call, status: number, expected: string[], action: string) => {
        const { told, answer } = await call(request, status, [...expected, 'admin_action'])
        for (const line of told) expect(line).to.include({ by: 'ADMIN_KEY' })
        expect(told.at(-1)).to.include({ action, status })
        return { told, answer }
      }
      const terms = { kind: 'fixed', ttlSeconds: 60, userId }
      const issued = await act(admin('POST', '/tokens', terms), 201, ['token_issued'], 'POST /tokens')
      const { tokenId } = issued.answer
      expect(issued.told[0]).to.include({ tokenId, userId, kind: 'fixed' })
      const ended = await act(admin('DELETE', `/tokens/${tokenId}`), 204, ['token_revoked'], 'DELETE /tokens/:id')
      expect(ended.told[0]).to.include({ tokenId })
      // The path is not logged, because it may contain the token itself.
      await act(admin('DELETE', '/tokens/CANARY-not-an-id-but-maybe-a-secret'), 404, [], 'DELETE /tokens/:id')
      await act(admin('DELETE', '/tokens/expired'), 200, [], 'DELETE /tokens/expired')
      await act(admin('GET', '/admin/users'), 200, [], 'GET /admin/users')
      const set = admin('PATCH', `/admin/users/${userId}`, { password: second })
      const changed = await act(set, 200, ['password_changed', 'sessions_revoked'], 'PATCH /admin/users/:id')
      expect(changed.told[0]).to.include({ userId, proof: 'operator' })
      const sessions = `/admin/users/${userId}/sessions`
      const all = await act(admin('DELETE', sessions), 204, ['sessions_revoked'], 'DELETE /admin/users/:id/sessions')
      expect(all.told[0]).to.include({ userId })
      await act(admin('DELETE', '/admin/users/nobody'), 404, [], 'DELETE /admin/users/:id')
    })

    it('reports a wrong or missing key', async () => {
      const told = async (request: Omit<Call, 'internal'>, status: number) =>
        (await call({ ...request, internal: true }, status, ['key_refused'])).told[0]
      const wrong = { bearer: `${serviceKey}-CANARY`, body: { token: 'x' } }
      expect(await told({ path: '/validateToken', ...wrong }, 401)).to.include({ key: 'SERVICE_KEY', reason: 'wrong' })
      const service = { method: 'GET', path: '/admin/users', bearer: serviceKey }
      expect(await told(service, 401)).to.include({ key: 'ADMIN_KEY', reason: 'wrong', level: 'warn' })
      expect(await told({ method: 'GET', path: '/admin/users' }, 401)).to.include({ reason: 'missing' })
    })

    it('reports a reached limit', async () => {
      for (let tries = 0; tries < 20; tries++) {
        const requestId = `limit-${tries}`
        const answer = await fetch(`${auth.url}/login`, {
          method: 'POST',
          headers: { connection: 'close', 'content-type': 'application/json', 'x-request-id': requestId },
          body: JSON.stringify({ username: 'bob@example.com', password: `${password}-wrong` }),
        })
        await answer.text()
        const told = auth.lines.filter(line => line['channel'] === 'security' && line['requestId'] === requestId)
        const [expected] = answer.status === 429 ? ['rate_limited'] : ['login_failed']
        expect(told.map(({ event }) => event)).to.deep.equal([expected])
        if (answer.status !== 429) continue
        expect(told[0]).to.include({ address: '127.0.0.1', level: 'warn', what: 'address_failures' })
        return
      }
      throw new Error('twenty wrong passwords were taken')
    })

    it('reports a deleted user', async () => {
      const { told } = await call(admin('DELETE', `/admin/users/${userId}`), 204, [
        'sessions_revoked',
        'user_deleted',
        'admin_action',
      ])
      expect(told[1]).to.include({ userId, by: 'ADMIN_KEY' })
    })

    it('has the same lines in the file as on the stream, and no others', async () => {
      await flushOutput(file)
      const security = auth.lines.filter(line => line['channel'] === 'security')
      expect(linesOf(path).map(line => ({ ...line, time: '' }))).to.deep.equal(
        security.map(line => ({ ...line, time: '' })),
      )
      const others = auth.lines.filter(line => line['channel'] !== 'security')
      expect(others.map(({ event }) => event)).to.include.members(['request', 'token_slid', 'mail_sent'])
    })

    it('contains no password, token or key, right or wrong', () => {
      expect(secrets).to.have.length.above(5)
      for (const text of [JSON.stringify(auth.lines), readFileSync(path, 'utf8')]) {
        expect(text).not.to.match(/CANARY/i)
        for (const secret of [...secrets.map(secret => secret.slice(-20)), adminKey, serviceKey]) {
          expect(text.includes(secret)).to.equal(false)
        }
      }
    })
  })
}

/** A stream that collects in `chunks` whatever is written. */
function into(chunks: string[]): Writable {
  return new Writable({
    write(chunk, _encoding, done) {
      chunks.push(String(chunk))
      done()
    },
  })
}

describe('a line of the security log', () => {
  const naughty = [
    'a\r\n{"level":"error","channel":"security"}',
    '\x1b[2J\x1b[31mred\x9b2J',
    'a\u2028b\u2029c\x85d\x7f',
    '","level":"error","x":"',
    '__proto__',
    '%s%d%j%o',
    '\u202eright to left',
    'ﷺ'.repeat(500),
    "'; DROP TABLE users; --",
    '<script>alert(1)</script>',
    '\ufeff\u200b\0',
  ]
  const spoof = { level: 'error', time: 'never', channel: 'other', service: 'other', event: 'other' }

  it('is one line of JSON with its own level, time and channel, whatever was sent', async () => {
    const { lines } = await (async () => {
      const auth = await startAuth()
      for (const [index, text] of naughty.entries()) {
        await fetch(`${auth.url}/login`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', connection: 'close', 'x-request-id': encodeURI(text) },
          body: JSON.stringify({ username: `${index}${text}`, password: text }),
        }).then(answer => answer.text())
      }
      return auth
    })()
    await closeServers()
    for (const line of lines) expect(line.level).to.be.oneOf(['error', 'warn', 'info', 'debug'])
    const failed = lines.filter(({ event }) => event === 'login_failed')
    expect(failed.length).to.be.at.least(4)
    for (const line of failed) {
      expect(line).to.include({ level: 'info', channel: 'security', reason: 'unknown_user' })
      expect(line['requestId']).to.match(/^[\w.-]{1,64}$/)
    }
  })

  it('lets no member of an event or a caller replace its level, time or channel, and caps each member', () => {
    const chunks: string[] = []
    const stream = into(chunks)
    const tell = logEvents(createLog({ service: 'auth', level: 'info', stream }), () => 0)
    for (const text of [...naughty, 'a'.repeat(100_000)]) {
      chunks.length = 0
      const caller = { requestId: text, address: text, ...spoof }
      runAsCaller(caller, () =>
        tell({ type: 'login_failed', userId: text, reason: text, ...spoof } as unknown as AuthEvent),
      )
      expect(chunks).to.have.length(1)
      expect(chunks[0])
        .to.match(/^[^\n]+\n$/)
        .and.not.match(/[^\P{Cc}\n]|[\u2028\u2029]/u)
      expect(chunks[0]?.length).to.be.below(20_000)
      const line = JSON.parse(chunks[0] as string) as LogLine
      expect(line).to.include({ level: 'info', service: 'auth', channel: 'security', event: 'login_failed' })
      expect(new Date(String(line['time'])).toISOString()).to.equal(line['time'])
    }
  })

  it('reaches the file whatever LOG_LEVEL is', () => {
    const [all, security]: [string[], string[]] = [[], []]
    const log = createLog({ service: 'auth', level: 'error', stream: into(all), securityStream: into(security) })
    log.info('login_succeeded', { channel: 'security' })
    log.error('something happened')
    expect(all.map(line => JSON.parse(line).event)).to.deep.equal(['something happened'])
    expect(security.map(line => JSON.parse(line).event)).to.deep.equal(['login_succeeded'])
  })
})

describe('the outage of a dependency', () => {
  function openWatch() {
    const told: string[] = []
    let at = 0
    const emit = (event: DependencyEvent) =>
      void told.push(event.type === 'dependency_recovered' ? `${event.type} after ${event.failures}` : event.type)
    const advance = (ms: number) => {
      at += ms
    }
    return { told, options: { monotonicNow: () => at, emit }, advance }
  }

  it('is reported once when it begins and once when nothing has failed for a while', async () => {
    const { told, options, advance } = openWatch()
    let isAway = false
    const store = instrument(
      {
        read: async () => 1,
        write: async () => {
          if (isAway) throw new Error('away')
        },
        close: async () => {},
      },
      'users',
      { ...options, startTimer: () => () => {} },
    )
    expect(await store.read()).to.equal(1)
    expect(told).to.deep.equal([])
    isAway = true
    for (let i = 0; i < 20; i++) {
      await store.write().catch(() => {})
      await store.read() // on a full disk, reads still work
      advance(1000)
    }
    expect(told).to.deep.equal(['dependency_failed'])
    isAway = false
    await store.write()
    expect(told).to.have.length(1)
    advance(5000)
    await store.write()
    await store.write()
    expect(told).to.deep.equal(['dependency_failed', 'dependency_recovered after 20'])
  })

  it('does not begin when the mail server refuses a single mail', () => {
    const { told, options } = openWatch()
    const events: string[] = []
    const onMail = watchMailServer(event => void events.push(event.type), options)
    const lost = (code: string) =>
      onMail({ type: 'mail_lost', userId: 'u', tries: 1, cause: Object.assign(new Error('lost'), { code }) })
    lost('EENVELOPE')
    expect(told).to.deep.equal([])
    lost('ESOCKET')
    lost('ESOCKET')
    expect(told).to.deep.equal(['dependency_failed'])
    expect(events).to.have.length(3)
  })
})

describe('the file of the security log', () => {
  const line = (text: string) => `{"text":"${text}"}\n`
  let next = 0
  const fresh = () => join(folder, `file-${++next}`, 'security.log')
  const filesOf = (path: string) => readdirSync(join(path, '..')).sort()
  const today = () => new Date().toISOString().slice(0, 10)
  const open = (path: string, maxBytes = 1_000_000) => openSecurityFile({ path, maxBytes, keepDays: 3 })

  it('is readable by its owner only, and the path of the setting links to the newest file', async () => {
    const path = fresh()
    const file = await open(path)
    file.write(line('a'))
    await flushOutput(file)
    expect(readFileSync(path, 'utf8')).to.equal(line('a'))
    expect(readlinkSync(path)).to.equal(`security.${today()}.log`)
    expect(lstatSync(join(path, '..', readlinkSync(path))).mode & 0o777).to.equal(0o600)
  })

  it('is rotated when it is full, loses no line, and continues after a restart', async () => {
    const path = fresh()
    for (let run = 0; run < 2; run++) {
      const file = await open(path, 4096)
      for (let i = 0; i < 500; i++) {
        file.write(line(`${run}-${i}`.padEnd(100)))
        if (i % 20 === 0) await flushOutput(file)
      }
      await flushOutput(file)
    }
    const files = filesOf(path).filter(name => name !== 'security.log')
    expect(files.length).to.be.above(10)
    const texts = files.map(name => readFileSync(join(path, '..', name), 'utf8'))
    for (const text of texts) expect(text.length).to.be.below(4096 + 21 * 120)
    const lines = texts.join('').trimEnd().split('\n')
    expect(new Set(lines).size).to.equal(1000)
  })

  it('is rotated daily, and only expired files are removed', async () => {
    const path = fresh()
    mkdirSync(join(path, '..'))
    const old = ['security.2020-01-01.log', 'security.2020-01-01.17.log']
    const others = [
      'security.2020-01-01.txt',
      'security-2020-01-01.log',
      'security.2020-01.log',
      'other.2020-01-01.log',
    ]
    for (const name of [...old, ...others]) writeFileSync(join(path, '..', name), '')
    const file = await open(path)
    file.write(line('today'))
    await flushOutput(file)
    await until(() => !filesOf(path).includes('security.2020-01-01.log'))
    const now = Date.now
    try {
      Date.now = () => now() + 86_400_000 // the rotation reads this clock
      file.write(line('tomorrow'))
      await flushOutput(file)
    } finally {
      Date.now = now
    }
    const tomorrow = new Date(now() + 86_400_000).toISOString().slice(0, 10)
    const expected = [...others, 'security.log', `security.${today()}.log`, `security.${tomorrow}.log`]
    expect(filesOf(path)).to.deep.equal(expected.sort())
    expect(readFileSync(path, 'utf8')).to.equal(line('tomorrow'))
  })

  it('is created again if it or its directory was removed', async () => {
    const path = fresh()
    const file = await open(path)
    file.write(line('a'))
    await flushOutput(file)
    for (const text of ['b', 'c']) {
      rmSync(join(path, '..'), { recursive: true })
      file.write(line(text))
      await flushOutput(file)
      expect(readFileSync(path, 'utf8')).to.equal(line(text))
    }
  })

  it('keeps lines while its directory cannot be created, and loses none', async () => {
    const path = fresh()
    const file = await open(path)
    rmSync(join(path, '..'), { recursive: true })
    writeFileSync(join(path, '..'), 'in the way')
    for (const text of ['a', 'b']) file.write(line(text))
    await flushOutput(file, 300)
    rmSync(join(path, '..'))
    await flushOutput(file)
    expect(readFileSync(path, 'utf8')).to.equal(line('a') + line('b'))
  })

  it('that cannot be written at the start is reported in a sentence', async () => {
    writeFileSync(join(folder, 'plain'), '')
    const path = join(folder, 'plain', 'security.log')
    const error = await open(path).catch((error: Error) => error)
    expect(error).to.be.an('error')
    expect((error as Error).message).to.match(/^SECURITY_LOG_FILE: .*security\.log cannot be written/)
  })

  it('on a full disk blocks nothing and keeps a few MB; dropped lines are counted, and reported once there is room', async () => {
    const path = fresh()
    const script = `
      import { createLog } from './shared/log/log.ts'
      import { flushOutput } from './shared/log/output.ts'
      import { openSecurityFile } from './shared/log/securityFile.ts'
      const securityStream = await openSecurityFile({ path: process.argv[1], maxBytes: 100_000_000, keepDays: 1 })
      const log = createLog({ service: 'child', level: 'error', stream: process.stdout, securityStream })
      const text = 'a'.repeat(900)
      for (let i = 0; i < 50_000; i++) {
        log.info('something happened', { channel: 'security', i, text })
        if (i % 100 === 0) await new Promise(resolve => setImmediate(resolve))
      }
      process.send('full')
      process.once('message', async () => {
        await flushOutput(securityStream, 5000)
        await flushOutput(securityStream, 5000)
        process.disconnect()
      })
    `
    // EFBIG instead of ENOSPC: the writer treats both errors alike, and EFBIG needs no separate disk.
    const node = [process.execPath, '--max-old-space-size=64', '--input-type=module', '-e', script, path]
    const child = spawn('bash', ['-c', 'ulimit -S -f 64; exec "$0" "$@"', ...node], {
      cwd: new URL('../../..', import.meta.url),
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    let stderr = ''
    child.stderr?.on('data', chunk => {
      stderr += chunk
    })
    const ended = once(child, 'close')
    const first = await Promise.race([once(child, 'message'), ended])
    expect(first, stderr).to.deep.equal(['full', undefined])
    expect(stderr).to.equal('The reader of the log of child is too slow: lines are dropped.\n')
    expect(readFileSync(path).length).to.equal(65_536)
    await once(spawn('prlimit', ['--pid', String(child.pid), '--fsize=unlimited:']), 'close')
    child.send('room')
    expect((await ended)[0], stderr).to.equal(0)
    const lines = linesOf(path)
    const told = lines.filter(({ event }) => event === 'log_lines_dropped')
    expect(told).to.have.length(1)
    expect(told[0]).to.include({ level: 'warn', service: 'child' })
    expect(lines.length - 1 + Number(told[0]?.['count'])).to.equal(50_000)
    expect(lines.length).to.be.within(4000, 10_000)
  })
})
