// How npm run bench:peers finds out how long a revoked session is accepted.
import { expect } from 'chai'
import { describeAcceptance, pollRevoked } from '../../bench/acceptance.ts'

/** Polls a peer that admits for `admitsForMs`; each request takes 10 ms. */
async function poll(admitsForMs: number, capMs: number) {
  let now = 5000
  const isAdmitted = async () => {
    now += 10
    return now - 5000 <= admitsForMs
  }
  const sleep = async (ms: number) => {
    now += ms
  }
  return await pollRevoked({ isAdmitted, capMs, monotonicNow: () => now, sleep })
}

describe('the time for which a revoked session is accepted', () => {
  it('is zero if the first request is refused', async () => {
    expect(await poll(0, 1000)).to.deep.equal({ acceptedMs: 0, isOver: true })
  })

  it('ends with the last request that was admitted', async () => {
    const { acceptedMs, isOver } = await poll(3000, 10_000)
    expect(isOver).to.equal(true)
    expect(acceptedMs).to.be.within(2700, 3000)
  })

  it('is open if the measurement ends first', async () => {
    const { acceptedMs, isOver } = await poll(100_000, 2000)
    expect(isOver).to.equal(false)
    expect(acceptedMs).to.be.within(2000, 2300)
  })

  it('is described with what was measured, and says what is only a setting', () => {
    expect(describeAcceptance({ acceptedMs: 0, isOver: true }, null)).to.equal('refused at once')
    expect(describeAcceptance({ acceptedMs: 299_700, isOver: true }, '300 s')).to.equal('300 s')
    expect(describeAcceptance({ acceptedMs: 2340, isOver: false }, null)).to.equal('more than 2.3 s')
    expect(describeAcceptance({ acceptedMs: 10_020, isOver: false }, '300 s')).to.equal(
      'more than 10 s; by its setting 300 s',
    )
  })
})
