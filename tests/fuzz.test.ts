// Ten thousand requests that nobody would send; npm run fuzz sends more. The seed is fixed, so that a failure repeats.
import { expect } from 'chai'
import { fuzz } from '../scripts/fuzz.ts'
import { openTargets } from './support/fuzzTargets.ts'

describe('whatever is sent', function () {
  this.timeout(120_000)

  it('is answered without a fault, a crash, a secret in the log or a trace on Object.prototype', async () => {
    const { targets, logIn, problems, close } = await openTargets()
    const { statuses, faults } = await fuzz(targets, { requests: 10_000, seed: 20261120, atOnce: 16, logIn })
    expect(faults).to.deep.equal([])
    expect(problems()).to.deep.equal([])
    // It has come further than the parser: good, refused and unknown are all among them.
    for (const status of ['200', '201', '204', '400', '401', '404', '405', '409', '415'])
      expect(statuses).to.have.property(status)
    await close()
  })
})
