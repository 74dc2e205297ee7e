// ./startServer in development when another program uses the default ports.
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { expect } from 'chai'
import { replaceTakenPorts } from '../../commands/start/takenPorts.ts'
import { logIn } from '../support/factories.ts'
import { cleanUp, copyOfProject, runStartServer } from '../support/startServer.ts'

const defaultPorts = [3000, 3001, 3100, 3101]
/** No port is set, so the defaults apply. */
const unset = {
  ...{ NODE_ENV: undefined, SERVICE_KEY: undefined, ADMIN_KEY: undefined },
  ...{
    AUTH_PORT: undefined,
    AUTH_INTERNAL_PORT: undefined,
    BUSINESS_PORT: undefined,
    BUSINESS_INTERNAL_PORT: undefined,
  },
}

describe('a default port that is taken', () => {
  const servers: Server[] = []
  /** Afterwards every default port is in use, by this test or by something else. */
  before(async () => {
    for (const port of defaultPorts) {
      const server = createServer(socket => socket.destroy())
      server.listen(port, '127.0.0.1')
      await once(server, 'listening').then(
        () => servers.push(server),
        () => {},
      )
    }
  })
  after(async () => {
    for (const server of servers) server.close()
    await cleanUp()
  })

  it('is replaced in development by the next free one, and everything that depends on it follows', async () => {
    const folder = copyOfProject()
    const run = runStartServer({ folder, env: unset })
    const addresses = (await run.ready) as Record<string, string>
    const portOf = (listener: string) => Number(new URL(addresses[listener] as string).port)
    for (const [listener, port, name] of [
      ['business', 3000, 'Business'],
      ['auth', 3001, 'Auth'],
      ['businessInternal', 3100, "Business's internal listener"],
      ['authInternal', 3101, "Auth's internal listener"],
    ] as const) {
      expect(portOf(listener), listener).to.be.above(port)
      expect(run.stderr()).to.include(`Port ${port} is in use: ${name} is on ${portOf(listener)}.\n`)
    }
    const { business = '', auth = '' } = addresses
    const get = (url: string, headers = {}) => fetch(url, { headers: { connection: 'close', ...headers } })
    expect((await get(`${business}/data`, { token: await logIn(auth) })).status).to.equal(200)
    const settings = (await (await get(`${auth}/console/settings.json`)).json()) as Record<string, unknown>
    expect(settings['publicUrl']).to.equal(`http://localhost:${portOf('auth')}`)
    expect(settings['businessUrl']).to.equal(`http://localhost:${portOf('business')}`)
    const page = `http://localhost:${portOf('auth')}`
    const answer = await get(`${business}/data`, { origin: page })
    expect(answer.headers.get('access-control-allow-origin')).to.equal(page)
    // Nothing but the keys is in .env, so the next start tries the default ports again.
    expect(readFileSync(join(folder, '.env'), 'utf8')).to.match(/^SERVICE_KEY=\S+\nADMIN_KEY=\S+\n$/)
    const env = { ...process.env, ...unset }
    const users = spawnSync(process.execPath, ['commands/latchkey.ts', 'users', 'list'], {
      cwd: folder,
      env,
      encoding: 'utf8',
    })
    expect(users.stdout + users.stderr).to.include('demo@example.com')
    run.process.kill('SIGTERM')
    expect(await run.ended).to.equal(0)
    expect(existsSync(join(folder, 'logs/ports.env'))).to.equal(false)
  })

  it('fails the start if it is set, by the environment or by .env, or outside development', async () => {
    const folder = copyOfProject()
    const ports = { AUTH_INTERNAL_PORT: '0', BUSINESS_PORT: '0', BUSINESS_INTERNAL_PORT: '0' }
    writeFileSync(join(folder, '.env'), 'AUTH_PORT=3001\n')
    for (const env of [
      { ...unset, ...ports, AUTH_PORT: '3001' },
      { ...unset, ...ports },
      { ...ports, AUTH_PORT: undefined },
    ]) {
      const { ended, stderr } = runStartServer({ folder, env })
      expect(await ended).to.equal(1)
      expect(stderr()).to.include('Port 3001 on 127.0.0.1 is already in use. Set AUTH_PORT to a free port.')
    }
  })

  describe('of several', () => {
    async function choose(env: Record<string, string>, taken: number[]) {
      const asked: string[] = []
      const said: string[] = []
      const chosen = await replaceTakenPorts(
        env,
        line => said.push(line),
        async (port, host) => {
          asked.push(`${host}:${port}`)
          return taken.includes(port)
        },
      )
      return { chosen, asked, said }
    }

    it('leaves the others alone', async () => {
      const { chosen, said } = await choose({}, [3101])
      expect(chosen).to.deep.equal({ AUTH_INTERNAL_PORT: '3102' })
      expect(said).to.deep.equal(["Port 3101 is in use: Auth's internal listener is on 3102."])
      expect((await choose({}, [])).chosen).to.deep.equal({})
    })

    it('is not replaced by the port of another listener', async () => {
      const env = { DIALECTS: 'token-provider:3003', BUSINESS_INTERNAL_PORT: '3102' }
      const { chosen } = await choose(env, [3000, 3001, 3101])
      expect(chosen).to.deep.equal({ BUSINESS_PORT: '3002', AUTH_PORT: '3004', AUTH_INTERNAL_PORT: '3103' })
      expect((await choose({ BUSINESS_PORT: '3001' }, [])).chosen).to.deep.equal({ AUTH_PORT: '3002' })
    })

    it('stays if a setting names its address, or if PORT replaces it', async () => {
      const address = 'http://localhost:1'
      const env = { PUBLIC_URL: address, AUTH_INTERNAL_URL: address, CONSOLE_BUSINESS_URL: address }
      expect((await choose(env, defaultPorts)).chosen).to.deep.equal({ BUSINESS_INTERNAL_PORT: '3102' })
      const { chosen } = await choose({ PORT: '5000' }, defaultPorts)
      expect(Object.keys(chosen)).to.deep.equal(['AUTH_PORT', 'BUSINESS_INTERNAL_PORT', 'AUTH_INTERNAL_PORT'])
    })

    it('is looked for at the address that the listener binds to', async () => {
      const { asked } = await choose({ HOST: '0.0.0.0', INTERNAL_HOST: '127.0.0.2' }, [])
      expect(asked).to.deep.equal(['0.0.0.0:3000', '0.0.0.0:3001', '127.0.0.2:3100', '127.0.0.2:3101'])
    })
  })
})
