// The log of both services with slow, missing and lost readers, and on a full disk.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import type { LogFields } from '../../../shared/log/log.ts'
import { post } from '../../support/client.ts'
import { demo } from '../../support/credentials.ts'

describe('the log of both services', () => {
  const serviceKey = 'log-service-key-0123456789-abcdefghijkl'
  const env = {
    ...process.env,
    NODE_ENV: 'test',
    SERVICE_KEY: serviceKey,
    ADMIN_KEY: `${serviceKey}-admin`,
    AUTH_PORT: '0',
    AUTH_INTERNAL_PORT: '0',
    BUSINESS_PORT: '0',
    BUSINESS_INTERNAL_PORT: '0',
    ACCESS_LOG: 'all',
    LOG_LEVEL: 'debug',
    TOKEN_TTL_SECONDS: '60',
  }
  const children: ChildProcess[] = []

  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
  })

  /** Starts a service whose stdout is a pipe that is not read yet, or the file descriptor `stdout`. */
  async function start(name: 'auth' | 'business', more: Record<string, string>, stdout: 'pipe' | number = 'pipe') {
    const child = spawn(
      'bash',
      [
        '-c',
        'ulimit -S -f "$1"; exec "$0" "$2"',
        process.execPath,
        more['BLOCKS'] ?? 'unlimited',
        `services/${name}/main.ts`,
      ],
      {
        cwd: new URL('../../..', import.meta.url),
        env: { ...env, ...more },
        stdio: ['ignore', stdout, 'pipe', 'ipc'],
      },
    )
    children.push(child)
    const service = { child, stderr: '', addresses: {} as Record<string, string>, ended: once(child, 'close') }
    child.stderr?.on('data', chunk => {
      service.stderr += chunk
    })
    const [ready] = await Promise.race([once(child, 'message'), service.ended])
    expect(ready, service.stderr).to.have.property('type', 'ready')
    service.addresses = (ready as { addresses: Record<string, string> }).addresses
    return service
  }

  const memoryOf = ({ pid }: ChildProcess) =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024

  const close = { connection: 'close' } // so that the service ends at once

  async function logIn(auth: string): Promise<string> {
    const answer = await post(`${auth}/login`, demo, close)
    expect(answer.status).to.equal(200)
    return answer.body['token'] as string
  }

  /** `count` requests over 50 connections, so that many share a call to Auth. Resolves once all are 200. */
  async function getMany(url: string, path: string, count: number, headers = ''): Promise<void> {
    const { hostname, port } = new URL(url)
    const request = `GET ${path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: ${'r'.repeat(64)}\r\n${headers}\r\n`
    let left = count
    async function getSome(): Promise<void> {
      const socket = connect(Number(port), hostname)
      while (left > 0) {
        left--
        socket.write(request)
        const [chunk] = (await once(socket, 'data')) as [Buffer]
        expect(String(chunk)).to.match(/^HTTP\/1.1 200 /)
      }
      socket.destroy()
    }
    await Promise.all(Array.from({ length: 50 }, getSome))
  }

  const linesIn = (text: string) =>
    text
      .trimEnd()
      .split('\n')
      .map(line => JSON.parse(line) as LogFields)

  /** Each call has 200 tokens, which the log reports in 200 lines. */
  async function validateMany(authInternal: string, calls: number): Promise<void> {
    for (let call = 0; call < calls; call++) {
      const body = { tokens: Array.from({ length: 200 }, () => 'malformed') }
      const answer = await post(`${authInternal}/validateToken`, body, {
        ...close,
        authorization: `Bearer ${serviceKey}`,
      })
      expect(answer.status).to.equal(200)
    }
  }

  it('that is not read delays no request and keeps a few MB; dropped lines are counted, and the next reader gets their number', async () => {
    const auth = await start('auth', {})
    const { auth: authUrl, authInternal } = auth.addresses as { auth: string; authInternal: string }
    const business = await start('business', { AUTH_INTERNAL_URL: authInternal })
    const businessUrl = business.addresses['business'] as string
    const token = await logIn(authUrl)
    const getData = (count: number) => getMany(businessUrl, '/data', count, `token: ${token}\r\n`)
    await Promise.all([getData(9000), validateMany(authInternal, 100)])
    await Promise.all([getData(9000), validateMany(authInternal, 100)])
    const dropping = 'is too slow: lines are dropped.\n'
    expect([auth.stderr, business.stderr]).to.deep.equal([
      `The reader of the log of auth ${dropping}`,
      `The reader of the log of business ${dropping}`,
    ])
    const before = [auth, business].map(({ child }) => memoryOf(child))
    await Promise.all([getData(9000), validateMany(authInternal, 200)])
    const after = [auth, business].map(({ child }) => memoryOf(child))
    for (const i of [0, 1]) expect(after[i] as number, String(after)).to.be.below((before[i] as number) + 40)
    const startedAt = performance.now()
    await logIn(authUrl)
    await getData(1)
    expect(performance.now() - startedAt).to.be.below(10_000) // for ever, if they waited for the reader

    for (const [{ child, ended, stderr }, requests] of [
      [business, 27_001],
      [auth, 402 + 27_001], // including up to one call of Business for each of its requests
    ] as const) {
      let text = ''
      child.stdout?.setEncoding('utf8').on('data', chunk => {
        text += chunk
      })
      for (let waitedMs = 0; waitedMs < 5000 && !text.includes('"log_lines_dropped"'); waitedMs += 10) await sleep(10)
      child.kill('SIGTERM') // the service passes the signal on to its parent
      child.send({ type: 'stop', reason: 'test' })
      expect((await ended)[0], stderr).to.equal(0)
      const lines = linesIn(text)
      const told = lines.filter(({ event }) => event === 'log_lines_dropped')
      expect(told).to.have.length(1)
      expect(told[0]).to.include({ level: 'warn' })
      expect(Number(told[0]?.['count'])).to.be.above(1000)
      expect(lines.filter(({ event }) => event === 'request').length).to.be.below(requests)
      // The number of Business's lines is known: one for each request, one for listening and one for closing.
      const all = lines.length - 1 + Number(told[0]?.['count'])
      if (child === business.child) expect(all).to.be.within(requests + 2, requests + 3)
      expect(lines.at(-1)).to.include({ event: 'closing' })
    }
  })

  it('delays no request if another process that inherited its pipe makes the pipe block', async () => {
    const script = `
      import { spawnSync } from 'node:child_process'
      import { createLog } from './shared/log/log.ts'
      import { openOutput } from './shared/log/output.ts'
      const log = createLog({ service: 'child', level: 'info', stream: openOutput(process.stdout) })
      log.info('something happened')
      spawnSync('true', { stdio: 'inherit' }) // libuv removes O_NONBLOCK from what is inherited
      for (let i = 0; i < 100; i++) log.info('something happened', { text: 'a'.repeat(2000) })
      setTimeout(() => process.send('alive'), 100)
    `
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      cwd: new URL('../../..', import.meta.url),
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    })
    children.push(child)
    const first = await Promise.race([once(child, 'message'), sleep(5000)])
    expect(first).to.deep.equal(['alive', undefined])
  })

  it('ends in time if it is not read', async () => {
    const auth = await start('auth', {})
    await validateMany(String(auth.addresses['authInternal']), 10)
    const startedAt = performance.now()
    auth.child.send({ type: 'stop', reason: 'test' })
    expect((await auth.ended)[0], auth.stderr).to.equal(0)
    expect(performance.now() - startedAt).to.be.below(6000)
  })

  it('whose reader has disconnected does not stop the service', async () => {
    const auth = await start('auth', {})
    auth.child.stdout?.destroy()
    for (let i = 0; i < 3; i++) await logIn(String(auth.addresses['auth']))
    expect(auth.stderr).to.equal('The reader of the log of auth has gone (EPIPE): no more lines are written.\n')
    auth.child.send({ type: 'stop', reason: 'test' })
    expect((await auth.ended)[0]).to.equal(0)
  })

  it('in a file on a full disk delays no request; once there is room again, a half-written line is completed', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'latchkey-log-'))
    const path = join(folder, 'log')
    const fd = openSync(path, 'a')
    try {
      // EFBIG instead of ENOSPC: the writer treats both errors alike, and EFBIG needs no separate disk.
      const auth = await start('auth', { BLOCKS: '64' }, fd)
      const { auth: authUrl, authInternal } = auth.addresses as { auth: string; authInternal: string }
      await validateMany(authInternal, 250)
      expect(readFileSync(path).length).to.equal(65_536)
      expect(auth.stderr).to.equal('The reader of the log of auth is too slow: lines are dropped.\n')
      await logIn(authUrl)
      await once(spawn('prlimit', ['--pid', String(auth.child.pid), '--fsize=unlimited:']), 'close')
      for (let waitedMs = 0; waitedMs < 5000 && !readFileSync(path, 'utf8').includes('dropped"'); waitedMs += 50)
        await sleep(50)
      await logIn(authUrl)
      auth.child.send({ type: 'stop', reason: 'test' })
      expect((await auth.ended)[0], auth.stderr).to.equal(0)
      const lines = linesIn(readFileSync(path, 'utf8'))
      expect(lines.filter(({ event }) => event === 'log_lines_dropped')).to.have.length(1)
      expect(lines.at(-1)).to.include({ event: 'closing' })
      expect(lines.filter(({ event }) => event === 'login_succeeded')).to.have.length(1)
    } finally {
      closeSync(fd)
      rmSync(folder, { recursive: true })
    }
  })

  it('is complete if it is read: the last line reports that the service closes', async () => {
    const auth = await start('auth', {})
    let text = ''
    auth.child.stdout?.setEncoding('utf8').on('data', chunk => {
      text += chunk
    })
    await validateMany(String(auth.addresses['authInternal']), 20)
    auth.child.send({ type: 'stop', reason: 'test' })
    await auth.ended
    const lines = linesIn(text)
    expect(lines.filter(({ event }) => event === 'token_refused')).to.have.length(4000)
    expect(lines.at(-1)).to.include({ event: 'closing', reason: 'test' })
  })
})
