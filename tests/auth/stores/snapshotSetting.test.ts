// TOKEN_SNAPSHOT_FILE: what a planned restart of Auth keeps.
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { expect } from 'chai'
import { readAuthConfig } from '../../../services/auth/config.ts'
import { ConfigError } from '../../../shared/config/readSettings.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import { newFolder, removeFolders } from '../../support/scratchFolders.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { cleanUp, runStartServer } from '../../support/startServer.ts'
import { until } from '../../support/until.ts'

/** Uses a new connection for each request, so that servers can close at once. */
async function ask(method: string, url: string, bearer: string | null, body?: unknown) {
  const headers = new Headers({ connection: 'close' })
  if (bearer !== null) headers.set('authorization', `Bearer ${bearer}`)
  if (body !== undefined) headers.set('content-type', 'application/json')
  const answer = await fetch(url, { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) })
  const text = await answer.text()
  return { status: answer.status, body: (text === '' ? {} : JSON.parse(text)) as Record<string, unknown> }
}

async function logIn(url: string): Promise<string> {
  const { status, body } = await ask('POST', `${url}/login`, null, demo)
  expect(status).to.equal(200)
  return body['token'] as string
}

describe('TOKEN_SNAPSHOT_FILE', () => {
  after(async () => {
    await closeServers()
    removeFolders()
  })

  it('is refused with a token store that survives restarts', () => {
    const base = { SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey, TOKEN_SNAPSHOT_FILE: '/tmp/tokens' }
    for (const url of ['sqlite:tokens.db', 'postgres://localhost/tokens']) {
      let problems: string[] = []
      try {
        readAuthConfig({ ...base, TOKEN_STORE_URL: url })
      } catch (error) {
        problems = (error as ConfigError).problems
        expect(error).to.be.instanceOf(ConfigError)
      }
      expect(problems).to.have.length(1)
      expect(problems[0]).to.match(/^TOKEN_SNAPSHOT_FILE: expected only with TOKEN_STORE_URL=memory:/)
    }
    for (const url of [undefined, '', 'memory:']) {
      expect(readAuthConfig({ ...base, TOKEN_STORE_URL: url }).snapshotFile).to.equal('/tmp/tokens')
    }
    expect(readAuthConfig({ ...base, TOKEN_SNAPSHOT_FILE: ' ' }).snapshotFile).to.equal(null)
  })

  it('keeps live tokens unchanged over a restart, and no ended token', async () => {
    const clock = createClock()
    const env = { TOKEN_SNAPSHOT_FILE: join(newFolder(), 'tokens') }
    let auth = await startAuth({ env, now: clock.now })
    const issue = async (terms: Record<string, unknown>) =>
      (await ask('POST', `${auth.internalUrl}/tokens`, adminKey, { ttlSeconds: 600, ...terms })).body['token'] as string
    const validate = async (body: object) =>
      (await ask('POST', `${auth.internalUrl}/validateToken`, serviceKey, body)).body

    const endedWithAll = await logIn(auth.url)
    const { userId } = await validate({ token: endedWithAll })
    const endedFixed = await issue({ kind: 'fixed', userId })
    await ask('DELETE', `${auth.url}/sessions`, endedWithAll)
    const [slid, old, loggedOut, revoked] = [
      await logIn(auth.url),
      await logIn(auth.url),
      await logIn(auth.url),
      await logIn(auth.url),
    ]
    const consumed = await issue({ kind: 'single-use' })
    const looks: object[] = [
      { token: slid },
      { token: await issue({ kind: 'fixed', userId }) },
      { token: await issue({ kind: 'single-use', userId, purpose: 'reset' }), purpose: 'reset' },
      { token: await issue({ kind: 'sliding', purpose: 'dialog', absoluteTtlSeconds: 900 }), purpose: 'dialog' },
      { token: await issue({ kind: 'fixed' }) },
    ]
    clock.advance(20_000)
    await validate({ tokens: [slid, slid, consumed] })
    looks.push({ token: (await ask('POST', `${auth.url}/renew`, old)).body['token'] })
    await ask('POST', `${auth.url}/logout`, loggedOut)
    await ask('DELETE', `${auth.internalUrl}/tokens/${revoked.slice(3, 17)}`, adminKey)
    const verdicts = () => Promise.all(looks.map(body => validate({ ...body, touch: false })))
    const before = await verdicts()
    for (const verdict of before) expect(verdict).to.include({ authenticated: true })
    await auth.service.close()
    expect(JSON.stringify(auth.lines)).to.not.include('close_failed')

    clock.advance(20_000) // longer than the original idle time, but shorter than the extended one
    auth = await startAuth({ env, now: clock.now })
    expect(await verdicts()).to.deep.equal(before)
    for (const token of [endedWithAll, endedFixed, old, loggedOut, revoked, consumed]) {
      // Using the old secret this long after the renewal would end the session.
      expect(await validate({ token, touch: token !== old })).to.deep.equal({ authenticated: false })
    }
    const listed = (await ask('GET', `${auth.url}/sessions`, slid)).body['sessions'] as { id: string }[]
    expect(listed.map(({ id }) => id)).to.deep.equal([slid.slice(3, 17), old.slice(3, 17)])

    expect((await ask('DELETE', `${auth.url}/sessions`, slid)).status).to.equal(204)
    expect(await validate({ token: slid })).to.deep.equal({ authenticated: false })
    expect(await validate({ token: await logIn(auth.url) })).to.include({ authenticated: true, userId })
  })

  it('drops dead tokens and those of unknown users, and logs how many', async () => {
    const clock = createClock()
    const env = { TOKEN_SNAPSHOT_FILE: join(newFolder(), 'tokens') }
    const first = await startAuth({ env, now: clock.now })
    expect(first.lines.some(({ event }) => event === 'tokens_restored')).to.equal(false)
    const own = await logIn(first.url)
    for (const [terms, count] of [
      [{ kind: 'fixed', ttlSeconds: 10 }, 2],
      [{ kind: 'fixed', ttlSeconds: 11 }, 3],
    ] as const) {
      for (let i = 0; i < count; i++) await ask('POST', `${first.internalUrl}/tokens`, adminKey, terms)
    }
    await first.service.close()
    clock.advance(10_000)
    const second = await startAuth({ env: { ...env, DEMO_USERNAME: 'another@example.com' }, now: clock.now })
    const told = second.lines.filter(({ event }) => event === 'tokens_restored')
    expect(told).to.have.length(1)
    expect(told[0]).to.include({ level: 'info', tokens: 3, dropped: 3 })
    const { body } = await ask('POST', `${second.internalUrl}/validateToken`, serviceKey, { token: own })
    expect(body).to.deep.equal({ authenticated: false })
  })

  describe('under ./startServer', () => {
    after(cleanUp)

    const statusOf = async (business: string, token: string) => (await ask('GET', `${business}/data`, token)).status

    it('keeps all sessions over a planned restart, even after a failed start on a taken port, and loses them in a crash', async function () {
      this.timeout(120_000) // on a busy machine, the four starts take long
      const file = join(newFolder(), 'tokens')
      const env = { TOKEN_SNAPSHOT_FILE: file, TOKEN_TTL_SECONDS: '60' }
      const first = runStartServer({ env })
      let at = await first.ready
      const [kept, ended] = [await logIn(at.auth), await logIn(at.auth)]
      expect((await ask('POST', `${at.auth}/logout`, ended)).status).to.equal(204)
      first.process.kill('SIGTERM')
      expect(await first.ended).to.equal(0)
      expect(statSync(file).mode & 0o777).to.equal(0o600)
      expect(readFileSync(file, 'utf8')).to.include('demo@example.com').and.to.not.include('lk_')

      const taken = createServer().listen(0, '127.0.0.1')
      await once(taken, 'listening')
      const unlucky = runStartServer({ env: { ...env, AUTH_PORT: String((taken.address() as AddressInfo).port) } })
      expect(await unlucky.ended).to.equal(1)
      taken.close()
      expect(existsSync(file), 'a start that failed has lost the tokens').to.equal(true)

      const second = runStartServer({ env })
      at = await second.ready
      expect(existsSync(file)).to.equal(false)
      expect(await statusOf(at.business, kept)).to.equal(200)
      expect(await statusOf(at.business, ended)).to.equal(401)
      expect(second.stdout()).to.match(/"event":"tokens_restored","tokens":1,"dropped":0/)
      const [auth] = execFileSync('pgrep', ['-P', String(second.process.pid), '-f', 'services/auth'], {
        encoding: 'utf8',
      }).split('\n')
      process.kill(Number(auth), 'SIGKILL')
      // Auth is restarted and has lost the tokens.
      await until(async () => (await statusOf(at.business, kept)) === 401)
      expect(existsSync(file)).to.equal(false)
      second.process.kill('SIGTERM')
      expect(await second.ended).to.equal(0)

      const third = runStartServer({ env })
      at = await third.ready
      expect(await statusOf(at.business, kept)).to.equal(401)
      await logIn(at.auth)
      rmSync(join(file, '..'), { recursive: true })
      third.process.kill('SIGTERM')
      expect(await third.ended, 'the tokens are lost, and the exit code says so').to.not.equal(0)
      const told = third
        .stdout()
        .split('\n')
        .find(line => line.includes('"event":"close_failed"'))
      expect(told).to.include('TOKEN_SNAPSHOT_FILE').and.to.include(file)
    })

    it('exits with 1 and one sentence if the file is not a complete snapshot, and leaves no file for the next start', async () => {
      const folder = newFolder()
      const file = join(folder, 'tokens')
      writeFileSync(file, 'latchkey tokens 2\n')
      const run = runStartServer({ env: { TOKEN_SNAPSHOT_FILE: file } })
      expect(await run.ended).to.equal(1)
      expect(run.stderr()).to.match(/^TOKEN_SNAPSHOT_FILE: .* is not a complete snapshot \(it ends too early\)/m)
      expect(run.stderr()).to.not.match(/^\s+at /m)
      expect(run.stdout()).to.not.include('"event":"listening"')
      expect(readdirSync(folder)).to.have.length(1)
      expect(existsSync(file)).to.equal(false)
    })

    it('is refused by --check-config with another store', async () => {
      const env = { TOKEN_SNAPSHOT_FILE: '/tmp/tokens', TOKEN_STORE_URL: 'redis://localhost' }
      const { ended, stderr } = runStartServer({ args: ['--check-config'], env })
      expect(await ended).to.equal(1)
      expect(stderr()).to.match(/^ {2}TOKEN_SNAPSHOT_FILE: expected only with/m)
    })
  })
})
