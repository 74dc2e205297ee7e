// A service that dies under ./startServer is restarted on the same ports, in every layout; if that fails, ./startServer
// ends.
import { once } from 'node:events'
import { mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { expect } from 'chai'
import { startWorkers } from '../../commands/start/workers.ts'
import { type Certificate, makeCertificate } from '../support/certificate.ts'
import { demo, serviceKey } from '../support/credentials.ts'
import { freePort } from '../support/freePort.ts'
import { cleanUp, descendantsOf, type Run, runStartServer } from '../support/startServer.ts'
import { freshPlace, type Place } from '../support/stores.ts'
import { until } from '../support/until.ts'

const startedWithinMs = 40_000 // on a busy machine

const pidOf = (pid: number, service: string) =>
  descendantsOf(pid).find(({ command }) => command.includes(`services/${service}/main.ts`))?.pid

/** Kills the process of a service and resolves once a new process has taken its place. */
async function kill(run: Run, service: 'auth' | 'business'): Promise<void> {
  const victim = pidOf(run.process.pid as number, service) as number
  process.kill(victim, 'SIGKILL')
  await until(() => {
    const now = pidOf(run.process.pid as number, service)
    return now !== undefined && now !== victim
  }, startedWithinMs)
}

/** Null if nothing answers. The certificate is self-signed. */
async function ask(url: string, { body, headers = {} }: { body?: unknown; headers?: Record<string, string> } = {}) {
  const options = {
    method: body === undefined ? 'GET' : 'POST',
    headers: { ...headers, ...(body !== undefined && { 'content-type': 'application/json' }) },
    agent: false as const,
    rejectUnauthorized: false,
  }
  const sent = (url.startsWith('https:') ? https : http).request(url, options)
  sent.end(body === undefined ? undefined : JSON.stringify(body))
  const [answer] = (await once(sent, 'response').catch(() => [null])) as [http.IncomingMessage | null]
  return answer && { status: answer.statusCode, text: await text(answer) }
}

const logIn = (auth: string) =>
  until(async () => {
    const answer = await ask(`${auth}/login`, { body: demo })
    return answer?.status === 200 && (JSON.parse(answer.text) as { token: string }).token
  }, startedWithinMs)

describe('a service that dies under ./startServer', () => {
  let folder: string
  let users: Place
  let certificate: Certificate
  let tls: Record<string, string>

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'latchkey-restarts-'))
    users = await freshPlace('sqlite')
    certificate = makeCertificate()
    tls = { TLS_CERT_FILE: certificate.certFile, TLS_KEY_FILE: certificate.keyFile }
  })
  after(async () => {
    await cleanUp()
    await users.remove()
    certificate.remove()
    rmSync(folder, { recursive: true })
  })

  const layouts: [string, () => Promise<Record<string, string>>][] = [
    ['a port each', async () => ({})],
    ['one address', async () => ({ PORT: String(await freePort()), HOST: '127.0.0.1' })],
    ['TLS and dialects', async () => ({ ...tls, DIALECTS: 'token-provider:0,flask-jwt:0' })],
  ]
  for (const [layout, settings] of layouts) {
    it(`restarts at the same addresses, even if the system chose them, and both work again (${layout})`, async () => {
      const run = runStartServer({
        env: { ...(await settings()), USER_STORE_URL: users.url, TOKEN_STORE_URL: users.url },
      })
      const addresses = (await run.ready) as Record<string, string>
      const [auth, business] = [addresses['auth'], addresses['business']] as [string, string]
      // With one address, requests also reach Auth through Business.
      const token = await logIn(layout === 'one address' ? business : auth)
      for (const service of ['auth', 'business', 'auth'] as const) {
        await kill(run, service)
        await until(
          async () => (await ask(`${business}/data`, { headers: { token } }))?.status === 200,
          startedWithinMs,
        )
        for (const name of ['auth', 'authInternal', 'business', 'businessInternal', 'tokenProvider', 'flaskJwt']) {
          const address = addresses[name]
          if (address === undefined) continue
          await until(async () => (await ask(`${address}/health`))?.status !== undefined, startedWithinMs)
        }
      }
      expect(run.process.exitCode).to.equal(null)
      run.process.kill('SIGTERM')
      expect(await run.ended).to.equal(0)
      expect(run.stderr().match(/^Auth ended \(SIGKILL\); restarting it/gm)).to.have.length(2)
      expect(run.stderr().match(/^Business ended \(SIGKILL\); restarting it/gm)).to.have.length(1)
      const logged = run
        .stdout()
        .split('\n')
        .filter(line => line.includes('"event":"service_ended"'))
        .map(line => JSON.parse(line) as Record<string, unknown>)
      expect(logged.map(({ level, name }) => [level, name])).to.deep.equal([
        ['warn', 'Auth'],
        ['warn', 'Business'],
        ['warn', 'Auth'],
      ])
      expect(run.stderr()).to.not.include('memory')
    })
  }

  it('has lost the tokens in its memory, and reports it; a crash writes no snapshot', async () => {
    const snapshot = join(folder, 'tokens.snapshot')
    const run = runStartServer({ env: { TOKEN_SNAPSHOT_FILE: snapshot } })
    const { auth, business } = await run.ready
    const token = await logIn(auth)
    await kill(run, 'business')
    await until(async () => (await ask(`${business}/data`, { headers: { token } }))?.status === 200, startedWithinMs)
    await kill(run, 'auth')
    const again = await logIn(auth)
    const statusOf = async (token: string) => (await ask(`${business}/data`, { headers: { token } }))?.status
    await until(async () => (await statusOf(again)) === 200)
    expect(await statusOf(token)).to.equal(401)
    const lost = 'Lost, because they were in its memory: all tokens and all registered users.'
    // Remove the pause: a sentence names it only if the process died sooner than the minimum life.
    const sentences = run
      .stderr()
      .replace(/ in [\d.]+ s\./g, '.')
      .match(/^\w+ ended .*$/gm)
    expect(sentences).to.deep.equal([
      'Business ended (SIGKILL); restarting it.',
      `Auth ended (SIGKILL); restarting it. ${lost}`,
    ])
    run.process.kill('SIGTERM')
    expect(await run.ended).to.equal(0)
  })

  it('is restarted at growing intervals, and no longer after repeated quick deaths', async () => {
    const keyFile = join(folder, 'service-key')
    writeFileSync(keyFile, serviceKey)
    const pauses: number[] = []
    let ended: (how: string) => void = () => {}
    const givenUp = new Promise<string>(resolve => {
      ended = resolve
    })
    const { SERVICE_KEY: _, NODE_V8_COVERAGE: __, ...env } = process.env
    const ports = { BUSINESS_PORT: '0', BUSINESS_INTERNAL_PORT: '0' }
    const log = join(folder, 'given-up.log')
    const others = new Set(descendantsOf(process.pid).map(({ pid }) => pid))
    await startWorkers({
      name: 'Business',
      path: 'services/business/main.ts',
      count: 1,
      env: { ...env, ...ports, NODE_ENV: 'test', SERVICE_KEY_FILE: keyFile },
      output: openSync(log, 'a'),
      restarts: { minLifeMs: 600_000, firstPauseMs: 1, maxPauseMs: 4, maxQuickDeaths: 5 },
      onStop() {},
      onRestart: ({ pauseMs }) => pauses.push(pauseMs),
      onEnd: how => ended(how),
    })
    rmSync(keyFile) // without the key file no new process can start
    const own = descendantsOf(process.pid).find(({ pid, command }) => !others.has(pid) && command.includes('business'))
    process.kill(own?.pid as number, 'SIGKILL')
    expect(await givenUp).to.equal('Business ended (exit code 1), 5 times in a row soon after its start')
    expect(pauses).to.deep.equal([1, 2, 4, 4])
  })
})
