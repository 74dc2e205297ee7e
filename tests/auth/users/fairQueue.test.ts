// users/fairQueue.ts: which job is next, and which is refused when the queue is full.
import { expect } from 'chai'
import fc from 'fast-check'
import { createFairQueue, type Party } from '../../../services/auth/users/fairQueue.ts'

interface Job extends Party {
  name: string
}

const many = 1000

function open({ maxWaiting = many, maxPerAccount = many } = {}) {
  const queue = createFairQueue<Job>({ maxWaiting, maxPerAccount })
  let jobs = 0
  const add = (network: string, account: string) => {
    const job = { network, account, name: `${network}/${account} ${++jobs}` }
    return { job, refused: queue.add(job)?.name ?? null }
  }
  /** The jobs in the order in which one worker would run them. */
  const drain = () => {
    const order: string[] = []
    for (let job = queue.next(); job !== null; job = queue.next()) {
      order.push(`${job.network}/${job.account}`)
      queue.done(job)
    }
    return order
  }
  return { queue, add, drain }
}

describe('the fair queue', () => {
  it('is first come, first served within one account at one network', () => {
    const { queue, add } = open()
    const names = [1, 2, 3].map(() => add('a', 'x').job.name)
    expect([queue.next()?.name, queue.next()?.name, queue.next()?.name]).to.deep.equal(names)
    expect(queue.next()).to.equal(null)
  })

  it('lets networks take turns, and accounts within a network', () => {
    const { add, drain } = open()
    for (let i = 0; i < 3; i++) add('a', 'x')
    for (let i = 0; i < 2; i++) add('a', 'y')
    add('b', 'z')
    add('b', 'z')
    expect(drain()).to.deep.equal(['a/x', 'b/z', 'a/y', 'b/z', 'a/x', 'a/y', 'a/x'])
  })

  it('serves a newcomer after at most two jobs, however many jobs and accounts one network has in the queue', () => {
    const { queue, add } = open()
    for (let i = 0; i < 60; i++) add('a', `x${i % 12}`)
    for (let i = 0; i < 5; i++) queue.next()
    const { job } = add('b', 'y')
    expect([queue.next(), queue.next()]).to.include(job)
  })

  it('serves a newcomer after at most two jobs, however many networks one account uses', () => {
    const { queue, add } = open()
    for (let i = 0; i < 20; i++) add(`a${i}`, 'x')
    queue.next()
    const { job } = add('b', 'y')
    expect([queue.next(), queue.next()]).to.include(job)
  })

  it('is never overtaken by a stream of newcomers', () => {
    const { queue, add } = open()
    for (let i = 0; i < 3; i++) add('a', 'x')
    queue.next()
    const { job } = add('b', 'y')
    const served: unknown[] = []
    for (let i = 0; i < 10 && !served.includes(job); i++) {
      add(`c${i}`, `z${i}`)
      served.push(queue.next())
    }
    expect(served.length).to.be.at.most(3)
  })

  it('refuses the newest job of the largest network when it is full, never a newcomer from a small one', () => {
    const { add, drain } = open({ maxWaiting: 4 })
    const attackers = [1, 2, 3, 4].map(i => add('a', `x${i}`))
    expect(attackers.every(({ refused }) => refused === null)).to.equal(true)
    expect(add('a', 'x5').refused).to.equal('a/x5 5')
    expect(add('b', 'y').refused).to.equal('a/x4 4')
    expect(add('c', 'z').refused).to.equal('a/x3 3')
    expect(drain()).to.have.members(['a/x1', 'a/x2', 'b/y', 'c/z'])
  })

  it('refuses the account with the most jobs when all jobs come from one network', () => {
    const { add } = open({ maxWaiting: 3 })
    add('a', 'y')
    add('a', 'x')
    add('a', 'x')
    expect(add('a', 'z').refused).to.equal('a/x 3')
  })

  it('refuses the account with the most jobs when each job comes from another network', () => {
    const { add } = open({ maxWaiting: 4 })
    for (let i = 0; i < 4; i++) add(`a${i}`, 'x')
    expect(add('b', 'y').refused).to.equal('a3/x 4')
  })

  it('counts waiting and running jobs of an account on all networks, and leaves the other places to others', () => {
    const { queue, add } = open({ maxPerAccount: 3 })
    add('a', 'x')
    const running = queue.next() as Job
    add('a', 'x')
    add('a', 'x')
    expect(add('a', 'x').refused).to.equal('a/x 4')
    // The same account is accepted from a network with fewer jobs, because that network may be the owner's.
    expect(add('b', 'x').refused).to.equal('a/x 3')
    expect(add('b', 'y').refused).to.equal(null)
    queue.done(running)
    expect(add('a', 'x').refused).to.equal(null)
  })

  it('forgets a job that is removed', () => {
    const { queue, add, drain } = open({ maxWaiting: 2, maxPerAccount: 2 })
    const { job } = add('a', 'x')
    add('a', 'x')
    expect(queue.remove(job)).to.equal(true)
    expect(queue.remove(job)).to.equal(false)
    expect(queue.waiting()).to.equal(1)
    expect(add('a', 'x').refused).to.equal(null)
    expect(drain()).to.have.length(2)
  })

  it('loses no job, runs none twice, and keeps its bounds, for any sequence of calls', () => {
    const party = fc.record({ network: fc.constantFrom('a', 'b', 'c'), account: fc.constantFrom('x', 'y', 'z') })
    const act = fc.oneof(
      party.map(party => ({ type: 'add' as const, party })),
      fc.constant({ type: 'next' as const }),
      fc.constant({ type: 'done' as const }),
      fc.nat(20).map(at => ({ type: 'remove' as const, at })),
    )
    fc.assert(
      fc.property(fc.array(act, { maxLength: 60 }), acts => {
        const queue = createFairQueue<Party>({ maxWaiting: 5, maxPerAccount: 4 })
        const [waiting, running] = [new Set<Party>(), new Set<Party>()]
        for (const act of acts) {
          if (act.type === 'add') {
            const job = { ...act.party }
            waiting.add(job)
            const refused = queue.add(job)
            if (refused) expect(waiting.delete(refused)).to.equal(true)
          } else if (act.type === 'next') {
            const job = queue.next()
            expect(job === null).to.equal(waiting.size === 0)
            if (job === null) continue
            expect(waiting.delete(job)).to.equal(true)
            running.add(job)
          } else if (act.type === 'done') {
            const [job] = running
            if (job) queue.done(job)
            if (job) running.delete(job)
          } else {
            const job = [...waiting, ...running][act.at]
            if (job) expect(queue.remove(job)).to.equal(waiting.delete(job))
          }
          expect(queue.waiting()).to.equal(waiting.size)
          expect(waiting.size).to.be.at.most(5)
          for (const account of ['x', 'y', 'z']) {
            expect([...waiting, ...running].filter(job => job.account === account).length).to.be.at.most(4)
          }
        }
      }),
    )
  })
})
