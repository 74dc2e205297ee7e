// Auth's clock while the machine's clock is changed.
import { expect } from 'chai'
import { steadyClock } from '../../services/auth/clock.ts'
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
    const now = steadyClock(machine.wallNow, machine.monotonicNow)
    expect(now()).to.equal(start)
    machine.pass(1234)
    expect(now()).to.equal(start + 1234)
  })

  it('never goes back, and keeps advancing when the clock of the machine is set back', () => {
    const machine = createMachine()
    const now = steadyClock(machine.wallNow, machine.monotonicNow)
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
    const now = steadyClock(machine.wallNow, machine.monotonicNow)
    machine.set(hour)
    expect(now()).to.equal(start + hour)
  })

  it('returns whole milliseconds', () => {
    let monotonic = 0.25
    const now = steadyClock(
      () => start,
      () => monotonic,
    )
    monotonic = 7.75
    expect(now()).to.equal(start + 7)
  })

  it('revives no token and extends none when the clock of the machine is set back', async () => {
    const machine = createMachine()
    const { url, internalUrl } = await startAuth({ now: steadyClock(machine.wallNow, machine.monotonicNow) })
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
})
