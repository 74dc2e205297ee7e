// Auth's clock while the machine's clock is changed.
import { expect } from 'chai'
import { type Clock, type ClockEvent, createClock } from '../../services/auth/clock.ts'
import { ask } from '../support/client.ts'
import { adminKey, demo } from '../support/credentials.ts'
import { logIn, validate } from '../support/factories.ts'
import { closeServers, startAuth } from '../support/servers.ts'

const start = 1_800_000_000_000
const hour = 3_600_000

function createMachine() {
  let [wall, monotonic] = [start, 0]
  return {
    wallNow: () => wall,
    monotonicNow: () => monotonic,
    pass(ms: number): void {
      wall += ms
      monotonic += ms
    },
    set(byMs: number): void {
      wall += byMs
    },
  }
}

describe('the clock of Auth', () => {
  after(closeServers)

  it('follows the clock of the machine', () => {
    const machine = createMachine()
    const { now } = createClock(machine.wallNow, machine.monotonicNow)
    expect(now()).to.equal(start)
    machine.pass(1234)
    expect(now()).to.equal(start + 1234)
  })

  it('never goes back, and keeps advancing when the clock of the machine is set back', () => {
    const machine = createMachine()
    const { now } = createClock(machine.wallNow, machine.monotonicNow)
    machine.pass(1000)
    machine.set(-2 * hour)
    expect(now()).to.equal(start + 1000)
    machine.pass(500)
    expect(now()).to.equal(start + 1500)
    machine.set(2 * hour)
    expect(now()).to.equal(start + 1500)
  })

  it('jumps ahead when the clock of the machine does', () => {
    const machine = createMachine()
    const { now } = createClock(machine.wallNow, machine.monotonicNow)
    machine.set(hour)
    expect(now()).to.equal(start + hour)
  })

  it('returns whole milliseconds', () => {
    let monotonic = 0.25
    const { now } = createClock(
      () => start,
      () => monotonic,
    )
    monotonic = 7.75
    expect(now()).to.equal(start + 7)
  })

  it('revives no token and extends none when the clock of the machine is set back', async () => {
    const machine = createMachine()
    const { url, internalUrl } = await startAuth({ clock: createClock(machine.wallNow, machine.monotonicNow) })
    const [dead, idle] = [await logIn(url), await logIn(url)]
    const verdictOn = async (token: string) => (await validate(internalUrl, { token })).body
    machine.pass(20_000)
    await verdictOn(idle)
    machine.pass(10_000)
    expect(await verdictOn(dead)).to.deep.equal({ authenticated: false })
    machine.set(-2 * hour)
    expect(await verdictOn(dead)).to.deep.equal({ authenticated: false })
    machine.pass(20_000)
    expect(await verdictOn(idle)).to.deep.equal({ authenticated: false })
  })

  it('returns to the right time when a jump ahead is undone, and says meanwhile that nothing should be swept', () => {
    const machine = createMachine()
    const clock = createClock(machine.wallNow, machine.monotonicNow)
    machine.pass(1000)
    expect(clock.isSteady()).to.equal(true)
    machine.set(hour)
    expect(clock.now()).to.equal(start + 1000 + hour)
    machine.pass(5000)
    expect(clock.isSteady()).to.equal(false)
    machine.set(-hour)
    expect(clock.now()).to.equal(start + 6000)
    machine.pass(60_000)
    expect(clock.now()).to.equal(start + 66_000)
    expect(clock.isSteady()).to.equal(true)
  })

  it('sweeps no live token while the clock of the machine is ahead in error, and ends only those that it refuses', async () => {
    const machine = createMachine()
    const clock = createClock(machine.wallNow, machine.monotonicNow)
    const { url, internalUrl, lines } = await startAuth({ clock, env: { SWEEP_INTERVAL_SECONDS: '1' } })
    const [unused, token] = [await logIn(url), await logIn(url)]
    machine.set(hour)
    expect((await validate(internalUrl, { token })).body).to.deep.equal({ authenticated: false })
    await new Promise(resolve => setTimeout(resolve, 1500)) // longer than the pause between sweeps
    expect(lines.filter(({ event }) => event === 'tokens_swept')).to.deep.equal([])
    machine.set(-hour)
    expect((await validate(internalUrl, { token: unused })).body).to.include({ authenticated: true })
    expect((await validate(internalUrl, { token })).body).to.deep.equal({ authenticated: false })
  })

  describe('if the token store has a clock', () => {
    const followed: Clock[] = []

    afterEach(() => {
      for (const clock of followed.splice(0)) clock.stop()
    })

    /** `store.aheadMs`: how far the store's clock is ahead of the true time. */
    async function follow(
      store: { aheadMs: number; answers: boolean },
      machine = createMachine(),
      trueNow = machine.wallNow,
    ) {
      const events: ClockEvent[] = []
      const clock = createClock(machine.wallNow, machine.monotonicNow)
      followed.push(clock)
      await clock.follow({
        maxSkewMs: 2000,
        emit: event => events.push(event),
        read: async () => {
          if (!store.answers) throw new Error('no answer')
          return trueNow() + store.aheadMs
        },
      })
      return { clock, machine, events }
    }

    /** Lets a reading that has begun end. */
    const settle = () => new Promise(resolve => setImmediate(resolve))

    it('has its time, also if that is behind the machine’s', async () => {
      for (const aheadMs of [1500, -1500]) {
        const { clock, machine, events } = await follow({ aheadMs, answers: true })
        expect(clock.whyUncertain()).to.equal(null)
        expect(clock.now()).to.equal(start + aheadMs)
        machine.pass(700)
        expect(clock.now()).to.equal(start + 700 + aheadMs)
        expect(events).to.deep.equal([{ type: 'clock_compared', skewMs: -aheadMs }, { type: 'clock_certain' }])
      }
    })

    it('is uncertain while the two differ by more than the maximum', async () => {
      for (const [aheadMs, direction] of [
        [60_000, 'behind'],
        [-60_000, 'ahead'],
      ] as const) {
        const { clock } = await follow({ aheadMs, answers: true })
        expect(clock.whyUncertain()).to.equal(
          `The clocks of Auth and of the token store differ by 60000 ms (Auth is ${direction}); at most 2000 ms are allowed.`,
        )
      }
    })

    it('is uncertain until the store’s clock has been read', async () => {
      const store = { aheadMs: 0, answers: false }
      const { clock } = await follow(store)
      expect(clock.whyUncertain()).to.equal('The clock of the token store has not been read yet.')
      store.answers = true
      const deadline = Date.now() + 5000
      while (clock.whyUncertain() !== null && Date.now() < deadline) await new Promise(done => setTimeout(done, 50))
      expect(clock.whyUncertain()).to.equal(null)
    })

    it('reads the store’s clock at once after a jump or a suspension of the machine, and is uncertain until then', async () => {
      for (const suspendedMs of [hour, 0]) {
        let trueNow = start
        const store = { aheadMs: 0, answers: true }
        const { clock, machine } = await follow(store, createMachine(), () => trueNow)
        trueNow += suspendedMs
        machine.set(suspendedMs || -hour)
        expect(clock.whyUncertain()).to.match(/has jumped, or the machine was suspended/)
        await settle()
        if (suspendedMs > 0) {
          expect(clock.whyUncertain()).to.equal(null)
          expect(clock.now()).to.equal(start + hour)
          expect(clock.isSteady()).to.equal(false)
        } else {
          // The machine's clock was set back, and is wrong now.
          expect(clock.whyUncertain()).to.match(/differ by 3600000 ms \(Auth is behind\)/)
        }
      }
    })

    it('keeps the time while the store does not answer', async () => {
      const store = { aheadMs: 500, answers: true }
      const { clock, machine } = await follow(store)
      store.answers = false
      machine.pass(10 * 60_000)
      expect(clock.whyUncertain()).to.equal(null)
      expect(clock.now()).to.equal(start + 10 * 60_000 + 500)
    })
  })

  describe('while the time is uncertain', () => {
    it('Auth gives no verdict, issues nothing and is not ready, but still ends tokens', async () => {
      const machine = createMachine()
      const clock = createClock(machine.wallNow, machine.monotonicNow)
      let problem: string | null = null
      const uncertain = { ...clock, whyUncertain: () => problem }
      const { url, internalUrl } = await startAuth({ clock: uncertain })
      const token = await logIn(url)
      const { tokenId } = (await validate(internalUrl, { token })).body as { tokenId: string }
      problem = 'The clock of this machine has jumped, or the machine was suspended.'
      expect((await validate(internalUrl, { token })).status).to.equal(503)
      expect((await ask('POST', `${url}/login`, null, demo)).status).to.equal(503)
      const ready = await fetch(`${internalUrl}/ready`)
      expect(ready.status).to.equal(503)
      expect(await ready.text()).to.include(problem)
      expect((await ask('DELETE', `${internalUrl}/tokens/${tokenId}`, adminKey)).status).to.equal(204)
      problem = null
      expect((await validate(internalUrl, { token })).body).to.deep.equal({ authenticated: false })
    })
  })
})
