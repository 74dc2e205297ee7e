// Requests that no client would send; `npm run fuzz` sends more. The seed is fixed, so that a failure can be repeated.
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { expect } from 'chai'
import { fuzz } from '../../tools/fuzz.ts'
import { openRealTargets, openTargets } from '../support/fuzzTargets.ts'
import { layouts } from '../support/realPair.ts'
import { cleanUp } from '../support/startServer.ts'

describe('whatever is sent', function () {
  this.timeout(120_000)

  /** How often each status was returned. */
  async function drive(tokenFormat: 'opaque' | 'jwt', requests: number): Promise<Record<string, number>> {
    const { targets, logIn, problems, close } = await openTargets({ tokenFormat })
    const { statuses, faults } = await fuzz(targets, { requests, seed: 20261120, atOnce: 16, logIn })
    expect(faults).to.deep.equal([])
    expect(problems()).to.deep.equal([])
    await close()
    return statuses
  }

  it('is answered without an internal error, a crash, a secret in the log or a polluted Object.prototype', async () => {
    const [statuses, ofJwts] = await Promise.all([drive('opaque', 4500), drive('jwt', 1500)])
    // These statuses show that requests got past the parser, to routes and dialects.
    expect(statuses).to.include.keys('200', '201', '204', '400', '401', '404', '405', '409', '415', '422')
    expect(ofJwts).to.include.keys('200', '204', '401')
  })
})

describe('a real pair', function () {
  this.timeout(120_000)
  after(cleanUp)

  const seed = 20261129
  const runs = new Map<string, ReturnType<typeof fuzzLayout>>()

  async function fuzzLayout(layout: (typeof layouts)[number]) {
    const { targets, logIn, problems, close } = await openRealTargets(layout)
    const options = { requests: 1000, seed, atOnce: 48, logIn, client: 'rude', timeoutMs: 10_000 } as const
    const { statuses, faults } = await fuzz(targets, options)
    const found = [...faults, ...problems()]
    await close()
    return { statuses, found }
  }

  // Run all layouts at the same time, because a rude client mostly waits.
  before(() => {
    for (const layout of layouts) {
      const run = fuzzLayout(layout)
      run.catch(() => {}) // the test that awaits the run reports its error
      runs.set(layout, run)
    }
  })

  for (const layout of layouts) {
    it(`keeps running and answering while clients pipeline, break off and do not read: ${layout}`, async () => {
      const { statuses, found } = (await runs.get(layout)) as Awaited<ReturnType<typeof fuzzLayout>>
      expect(found, `seed ${seed}`).to.deep.equal([])
      expect(statuses).to.include.keys('200', '400') // how many others are answered depends on how busy the machine is
    })
  }
})

describe('the fuzzer', () => {
  it('reports an unknown option in a sentence', () => {
    const { status, stderr } = spawnSync(process.execPath, ['tools/fuzz.ts', '--sed', '1'], { encoding: 'utf8' })
    expect(status).to.equal(2)
    expect(stderr).to.include('--sed').and.include('Usage: ')
    expect(stderr).to.not.match(/^\s+at /m)
  })

  it('reports a complete request without an answer as a fault', async () => {
    const server = createServer(socket => socket.once('data', () => socket.resetAndDestroy())).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const operations = [{ method: 'GET', path: '/', query: [], bodies: {} }]
    const logIn = async () => ({ username: 'a', password: 'b', tokens: ['c'] })
    const options = { requests: 10, seed: 1, atOnce: 1, logIn }
    const { statuses, faults } = await fuzz([{ url: `http://127.0.0.1:${port}`, operations }], options)
    expect(statuses).to.deep.equal({ none: 10 })
    expect(faults.length).to.be.within(5, 10) // some requests were malformed deliberately
    server.close()
  })
})
