// throttles.unlock: an operator ends the wait of one account.
import { expect } from 'chai'
import { accountLimits, createThrottles } from '../../../services/auth/defence/throttles.ts'
import { memoryCounters } from '../../../shared/counters.ts'
import type { AppError } from '../../../shared/http/errors.ts'

describe('throttles.unlock', () => {
  const perAddress = { failures: 1000, mails: 1000, registrations: 1000, guestTokens: 1000 }
  const newThrottles = () =>
    createThrottles({ perAccount: accountLimits, perAddress, openCounter: memoryCounters(() => 1), emit: () => {} })

  let addresses = 0
  /** Tries a password from an unknown address; resolves to `refused` if it was not verified. */
  async function attempt(throttles: ReturnType<typeof newThrottles>, account: string, isRight: boolean) {
    try {
      const outcome = isRight ? 'right' : 'wrong_password'
      const check = { verify: async () => ({ outcome, userId: null }), imitate: async () => {} }
      const attempt = { account, address: `198.51.100.${++addresses}` }
      return (await throttles.attemptLogin(attempt, check)).outcome === 'right' ? 'right' : 'wrong'
    } catch (error) {
      expect((error as AppError).code).to.equal('too_many_requests')
      return 'refused'
    }
  }

  it('lets the user log in from a new address at once, and forgets the failures', async () => {
    const throttles = newThrottles()
    for (let i = 0; i < accountLimits.freeFailures; i++) await attempt(throttles, 'ann', false)
    expect(await attempt(throttles, 'ann', true)).to.equal('refused')
    await throttles.unlock('ANN')
    for (let i = 1; i < accountLimits.freeFailures; i++) {
      expect(await attempt(throttles, 'ann', false), 'counted from the start again').to.equal('wrong')
    }
    expect(await attempt(throttles, 'ann', true)).to.equal('right')
  })

  it('leaves other accounts locked', async () => {
    const throttles = newThrottles()
    for (const account of ['ann', 'bob']) {
      for (let i = 0; i < accountLimits.freeFailures; i++) await attempt(throttles, account, false)
    }
    await throttles.unlock('ann')
    expect(await attempt(throttles, 'bob', true)).to.equal('refused')
  })
})
