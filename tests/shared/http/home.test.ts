// GET / of each listener: it leads a newcomer to the console, and production has nothing there.
import { expect } from 'chai'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'
import { cleanUp, copyOfProject, runStartServer } from '../../support/startServer.ts'

const get = (url: string) => fetch(url, { redirect: 'manual', headers: { connection: 'close' } })

describe('GET /', () => {
  after(async () => {
    await closeServers()
    await cleanUp()
  })

  it('of Auth leads to the console of the same listener', async () => {
    const { url, internalUrl } = await startAuth()
    for (const [listener, service, title] of [
      [url, 'Latchkey Auth', '<title>Latchkey console'],
      [internalUrl, 'Latchkey Auth, internal listener', 'the operator’s view'],
    ] as const) {
      const answer = await get(`${listener}/`)
      expect([answer.status, answer.headers.get('location')]).to.deep.equal([302, '/console'])
      expect(await answer.json()).to.deep.equal({ service, console: '/console' })
      const page = await fetch(`${listener}/`, { headers: { connection: 'close' } })
      expect(page.status).to.equal(200)
      expect(await page.text()).to.include(title)
    }
  })

  it('of Auth is 404 in production', async () => {
    const { url, internalUrl } = await startAuth({ env: { NODE_ENV: 'production' } })
    for (const listener of [url, internalUrl]) expect((await get(`${listener}/`)).status).to.equal(404)
  })

  it('of Business leads to CONSOLE_URL, and is 404 without it', async () => {
    const auth = await startAuth()
    const console = 'http://localhost:3001/console'
    const { url } = await startBusiness(auth.internalUrl, { CONSOLE_URL: console })
    const answer = await get(`${url}/`)
    expect([answer.status, answer.headers.get('location')]).to.deep.equal([302, console])
    expect(await answer.json()).to.deep.equal({ service: 'Latchkey Business', console })
    expect((await get(`${(await startBusiness(auth.internalUrl)).url}/`)).status).to.equal(404)
  })

  for (const [layout, env] of [
    ['two addresses', {}],
    ['one address', { PORT: '0' }],
  ] as const) {
    it(`of Business leads to the console with ./startServer in development, at ${layout}`, async () => {
      const development = { NODE_ENV: undefined, SERVICE_KEY: undefined, ADMIN_KEY: undefined }
      const run = runStartServer({ folder: copyOfProject(), env: { ...development, ...env } })
      const page = await fetch((await run.ready).business, { headers: { connection: 'close' } })
      expect([page.status, new URL(page.url).pathname]).to.deep.equal([200, '/console'])
      run.process.kill('SIGTERM')
      await run.ended
    })
  }
})
