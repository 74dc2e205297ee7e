// Both services under ./startServer, as real processes. The titles name the paths of the state diagram in
// docs/architecture.md.
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { post } from '../support/client.ts'
import { logIn } from '../support/factories.ts'
import { cleanUp, type Run, runStartServer } from '../support/startServer.ts'
import { until } from '../support/until.ts'

describe('the pair', () => {
  let run: Run
  let at: Awaited<Run['ready']>
  before(async () => {
    run = runStartServer({ env: { TOKEN_TTL_SECONDS: '2', SWEEP_INTERVAL_SECONDS: '1' } })
    at = await run.ready
  })
  after(cleanUp)

  const getData = (headers: Record<string, string>) => fetch(`${at.business}/data`, { headers })
  const statusFor = async (token: string) => (await getData({ token })).status
  const login = (password: string) => post(`${at.auth}/login`, { username: 'demo@example.com', password })

  it('log in, credentials good: a token', async () => {
    expect(await logIn(at.auth)).to.match(/^lk_/)
  })

  it('log in, credentials not good: 401 invalid_credentials', async () => {
    const answer = await login('wrong')
    expect(answer.status).to.equal(401)
    expect(answer.body).to.include({ error: 'invalid_credentials' })
  })

  it('data, token known and fresh: data, by either header', async () => {
    const token = await logIn(at.auth)
    for (const headers of [{ token }, { authorization: `Bearer ${token}` }]) {
      const answer = await getData(headers)
      expect(answer.status).to.equal(200)
      expect(await answer.json()).to.deep.equal({ data: 'Hello, demo@example.com!' })
    }
  })

  it('data, token not known: 401 invalid_token', async () => {
    const answer = await getData({ token: 'lk_nobodyhasthistoken' })
    expect(answer.status).to.equal(401)
    expect(await answer.json()).to.include({ error: 'invalid_token' })
  })

  it('data within the idle time, again and again: it slides', async () => {
    const token = await logIn(at.auth)
    for (let elapsed = 0; elapsed < 3000; elapsed += 600) {
      await sleep(600)
      expect(await statusFor(token), `after ${elapsed + 600} ms`).to.equal(200)
    }
  })

  it('data, token not fresh: 401 invalid_token, and the sweep is logged', async () => {
    const token = await logIn(at.auth)
    await sleep(2050)
    expect(await statusFor(token)).to.equal(401)
    await until(() => run.stdout().includes('"tokens_swept"'))
  })

  it('log out: refused on the very next request', async () => {
    const token = await logIn(at.auth)
    expect(await statusFor(token)).to.equal(200)
    await fetch(`${at.auth}/logout`, { method: 'POST', headers: { token } })
    expect(await statusFor(token)).to.equal(401)
  })

  it('Auth gave no verdict: 503 unavailable', async () => {
    const orphan = runStartServer({ env: { AUTH_INTERNAL_URL: 'http://127.0.0.1:1' } })
    await orphan.ended
    expect(orphan.stderr()).to.include('Auth gives no verdicts')
  })
})
