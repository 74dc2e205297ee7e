// Several processes of each service under ./startServer, with shared stores.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { post } from '../support/client.ts'
import { serviceKey } from '../support/credentials.ts'
import { logIn } from '../support/factories.ts'
import { cleanUp, type Run, runStartServer } from '../support/startServer.ts'
import { freshPlace, type Place } from '../support/stores.ts'
import { until } from '../support/until.ts'

function workersOf({ process: { pid } }: Run): { pid: number; service: string }[] {
  const lines = execFileSync('ps', ['-eo', 'pid=,ppid=,args='], { encoding: 'utf8' }).trim().split('\n')
  return lines.flatMap(line => {
    const [child, parent, ...command] = line.trim().split(/\s+/)
    const service = /services\/(auth|business)\/main\.ts/.exec(command.join(' '))?.[1]
    return Number(parent) === pid && service !== undefined ? [{ pid: Number(child), service }] : []
  })
}

const timesIn = (text: string, part: string) => text.split(part).length - 1

const startedWithinMs = 80_000 // several processes start one by one, on a busy machine

/** Clients that request /data continuously, each with its own session. Each pauses, to leave the processor to starting workers. */
function drive(business: string, tokens: string[], pauseMs = 50) {
  const statuses = new Map<number | string, number>()
  let stopped = false
  const client = async (token: string) => {
    while (!stopped) {
      const status = await fetch(`${business}/data`, { headers: { token } }).then(
        async answer => {
          await answer.text()
          return answer.status
        },
        error => String(error.cause?.code ?? error),
      )
      if (status === 'ECONNREFUSED') return
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
      await sleep(pauseMs)
    }
  }
  const clients = tokens.map(client)
  return {
    statuses,
    answered: () => statuses.get(200) ?? 0,
    async stop() {
      stopped = true
      await Promise.all(clients)
    },
  }
}

describe('several processes of each service', () => {
  let users: Place
  let tokens: Place
  let run: Run
  let auth: string
  let business: string

  before(async () => {
    users = await freshPlace('sqlite')
    tokens = await freshPlace('redis')
    const stores = { USER_STORE_URL: users.url, TOKEN_STORE_URL: tokens.url }
    run = runStartServer({ env: { ...stores, AUTH_WORKERS: '2', WEB_CONCURRENCY: '2', ACCESS_LOG: 'errors' } })
    ;({ auth, business } = await run.ready)
  })
  after(async () => {
    await cleanUp()
    await users.remove()
    await tokens.remove()
  })

  it('share the ports, and a token revoked through one process is refused by all on the next request', async () => {
    expect(workersOf(run).map(({ service }) => service)).to.have.members(['auth', 'auth', 'business', 'business'])
    for (let round = 0; round < 10; round++) {
      const token = await logIn(auth)
      // Each request has its own connection, so that all processes get requests in turn.
      const ask = () => fetch(`${business}/data`, { headers: { token, connection: 'close' } })
      for (let i = 0; i < 4; i++) expect((await ask()).status).to.equal(200)
      const headers = { authorization: `Bearer ${token}`, connection: 'close' }
      expect((await post(`${auth}/logout`, {}, headers)).status).to.equal(204)
      for (let i = 0; i < 4; i++) expect((await ask()).status).to.equal(401)
    }
  })

  it('are replaced one by one on SIGHUP without losing a request', async () => {
    const before = workersOf(run).map(({ pid }) => pid)
    const load = drive(business, await Promise.all(Array.from({ length: 8 }, () => logIn(auth))), 200)
    await until(() => load.answered() > 50, startedWithinMs)
    run.process.kill('SIGHUP')
    await until(() => run.stdout().includes('"event":"workers_replaced"'), startedWithinMs)
    const answered = load.answered()
    await until(() => load.answered() > answered + 50, startedWithinMs)
    await load.stop()
    const now = workersOf(run).map(({ pid }) => pid)
    expect(now).to.have.length(4)
    expect(now.filter(pid => before.includes(pid))).to.deep.equal([])
    expect([...load.statuses.keys()]).to.deep.equal([200])
  })

  it('are replaced once more after a second SIGHUP during a replacement, and keep their number', async function () {
    this.timeout(4 * startedWithinMs)
    const before = workersOf(run).map(({ pid }) => pid)
    const [begun, ended] = ['"event":"workers_replacing"', '"event":"workers_replaced"']
    const [begunBefore, endedBefore] = [timesIn(run.stdout(), begun), timesIn(run.stdout(), ended)]
    run.process.kill('SIGHUP')
    await until(() => timesIn(run.stdout(), begun) > begunBefore, startedWithinMs)
    run.process.kill('SIGHUP')
    await until(() => timesIn(run.stdout(), ended) === endedBefore + 2, 2 * startedWithinMs)
    const now = workersOf(run)
    expect(now.map(({ service }) => service)).to.have.members(['auth', 'auth', 'business', 'business'])
    expect(now.filter(({ pid }) => before.includes(pid))).to.deep.equal([])
    expect((await fetch(`${business}/data`, { headers: { token: await logIn(auth) } })).status).to.equal(200)
  })

  it('are not replaced on SIGHUP if there is only one, because nothing else would hold its ports', async () => {
    const alone = runStartServer({ env: { WEB_CONCURRENCY: '2' } })
    await alone.ready
    const before = workersOf(alone)
    alone.process.kill('SIGHUP')
    await until(() => alone.stdout().includes('"event":"workers_replaced"'), startedWithinMs)
    const authOf = (workers: { pid: number; service: string }[]) => workers.filter(({ service }) => service === 'auth')
    expect(authOf(workersOf(alone))).to.deep.equal(authOf(before))
    expect(workersOf(alone)).to.have.length(3)
    alone.process.kill('SIGTERM')
    expect(await alone.ended).to.equal(0)
  })

  it('are restarted when one dies, while the others keep working', async () => {
    const token = await logIn(auth)
    for (const service of ['business', 'auth']) {
      const victim = workersOf(run).find(worker => worker.service === service)
      process.kill(Number(victim?.pid), 'SIGKILL')
      await until(
        () => run.stderr().includes(`${service === 'auth' ? 'Auth' : 'Business'} ended (SIGKILL); restarting it`),
        startedWithinMs,
      )
      await until(() => workersOf(run).length === 4, startedWithinMs)
      await until(() => !workersOf(run).some(({ pid }) => pid === victim?.pid), startedWithinMs)
    }
    expect((await fetch(`${business}/data`, { headers: { token } })).status).to.equal(200)
  })

  it('end together on SIGTERM without losing a request', async () => {
    const load = drive(business, await Promise.all(Array.from({ length: 8 }, () => logIn(auth))))
    await until(() => load.answered() > 200, startedWithinMs)
    run.process.kill('SIGTERM')
    expect(await run.ended).to.equal(0)
    await load.stop()
    expect([...load.statuses.keys()]).to.deep.equal([200])
  })
})

describe('several processes of Auth, of which no other can start,', () => {
  let users: Place
  let tokens: Place
  let run: Run
  let auth: string
  let folder: string
  let keyFile: string

  before(async () => {
    users = await freshPlace('sqlite')
    tokens = await freshPlace('redis')
    folder = mkdtempSync(join(tmpdir(), 'latchkey-workers-'))
    keyFile = join(folder, 'service-key')
    writeFileSync(keyFile, serviceKey)
    const keys = { SERVICE_KEY: undefined, SERVICE_KEY_FILE: keyFile }
    const stores = { USER_STORE_URL: users.url, TOKEN_STORE_URL: tokens.url }
    run = runStartServer({ env: { ...stores, ...keys, AUTH_WORKERS: '2' } })
    ;({ auth } = await run.ready)
    rmSync(keyFile)
  })
  after(async () => {
    await cleanUp()
    rmSync(folder, { recursive: true })
    await users.remove()
    await tokens.remove()
  })

  const authsOf = (run: Run) => workersOf(run).flatMap(({ pid, service }) => (service === 'auth' ? [pid] : []))

  it('stay and serve if their replacements cannot start, and are replaced by a later SIGHUP', async () => {
    const before = authsOf(run)
    run.process.kill('SIGHUP')
    const warning = await until(
      () =>
        run
          .stdout()
          .split('\n')
          .find(line => line.includes('"event":"workers_not_replaced"')),
      startedWithinMs,
    )
    expect(JSON.parse(warning)).to.include({ level: 'warn', reason: 'Auth ended (exit code 1)' })
    expect(authsOf(run)).to.deep.equal(before)
    for (let i = 0; i < 4; i++) await logIn(auth)

    writeFileSync(keyFile, serviceKey)
    run.process.kill('SIGHUP')
    await until(() => run.stdout().includes('"event":"workers_replaced"'), startedWithinMs)
    expect(authsOf(run)).to.have.length(2)
    expect(authsOf(run).filter(pid => before.includes(pid))).to.deep.equal([])
  })

  it('serve while a dead one is restarted, at growing intervals, until all are back', async () => {
    rmSync(keyFile)
    const [victim, other] = authsOf(run)
    process.kill(Number(victim), 'SIGKILL')
    await until(() => /Auth ended \(exit code 1\); restarting it in [248] s\./.test(run.stderr()), startedWithinMs)
    expect(authsOf(run)).to.include(other)
    await logIn(auth)

    writeFileSync(keyFile, serviceKey)
    await until(() => authsOf(run).length === 2, startedWithinMs)
  })

  it('end on SIGTERM without being killed, even if one is still starting', async () => {
    const at = performance.now()
    run.process.kill('SIGTERM')
    expect(await run.ended).to.equal(0)
    expect(performance.now() - at).to.be.below(20_000)
  })
})
