// The queue for connections: who waits, and who is refused at once.
import { expect } from 'chai'
import { createConnectionQueue } from '../../../services/auth/stores/sql/connectionQueue.ts'
import { toMessage } from '../../support/storeFixtures.ts'

const refused = 'all 2 connections to the database are in use'

describe('the queue for connections', () => {
  const outcomeOf = (entered: Promise<void>) => entered.then(() => 'entered', toMessage)

  it('gives each connection that comes back to the call that has waited longest', async () => {
    const queue = createConnectionQueue({ connections: 2, maxWaiting: 10, maxWaitMs: 60_000, stuckAfterMs: 60_000 })
    await queue.enter()
    await queue.enter()
    const order: number[] = []
    const waiting = [1, 2, 3].map(n => queue.enter().then(() => order.push(n)))
    for (const call of waiting) {
      queue.leave()
      await call
    }
    expect(order).to.deep.equal([1, 2, 3])
    queue.leave()
    queue.leave()
    await Promise.all([queue.enter(), queue.enter()])
    const third = queue.enter().then(() => 'entered')
    expect(await Promise.race([third, 'waits'])).to.equal('waits')
    queue.leave()
    expect(await third).to.equal('entered')
  })

  it('refuses a call at once if too many wait', async () => {
    const queue = createConnectionQueue({ connections: 2, maxWaiting: 1, maxWaitMs: 60_000, stuckAfterMs: 60_000 })
    await queue.enter()
    await queue.enter()
    const waiting = queue.enter()
    expect(await outcomeOf(queue.enter())).to.equal(refused)
    queue.leave()
    await waiting
  })

  it('refuses all calls at once while no connection comes back', async () => {
    const queue = createConnectionQueue({ connections: 2, maxWaiting: 10, maxWaitMs: 60_000, stuckAfterMs: 20 })
    await queue.enter()
    await queue.enter()
    expect(await outcomeOf(queue.enter())).to.equal(refused)
    expect(
      await Promise.race([outcomeOf(queue.enter()), new Promise(resolve => setImmediate(resolve, 'waits'))]),
    ).to.equal(refused)
    queue.leave()
    expect(await outcomeOf(queue.enter())).to.equal('entered')
    const waiting = queue.enter()
    queue.leave()
    await waiting
  })
  it('lets a call wait while connections come back, but not for longer than its limit', async () => {
    const queue = createConnectionQueue({ connections: 2, maxWaiting: 10, maxWaitMs: 100, stuckAfterMs: 60_000 })
    await queue.enter()
    await queue.enter()
    expect(await outcomeOf(queue.enter())).to.equal(refused)
    const waiting = outcomeOf(queue.enter())
    queue.leave()
    expect(await waiting).to.equal('entered')
  })
})
