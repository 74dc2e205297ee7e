// When held tokens are looked at: the pace of calls for looks alone, and what calls of requests take from them.
import { expect } from 'chai'
import { createLookQueue } from '../../packages/client/lookQueue.ts'

const tickMs = 25

interface Traffic {
  /** A call of requests leaves so often. */
  everyMs: number
  /** Its free places. */
  places: number
}

/** Runs for ten seconds with late timers; `calls` are the times of calls for looks alone. */
function simulate(tokens: number, traffic: Traffic | null = null) {
  const queue = createLookQueue<number>({ maxBatch: 255 })
  const calls: number[] = []
  const lookedAt: number[] = []
  let looks = 0
  let maxGapMs = 0
  let maxSize = 0

  function look(taken: number[], now: number): void {
    looks += taken.length
    maxSize = Math.max(maxSize, taken.length)
    for (const token of taken) {
      maxGapMs = Math.max(maxGapMs, now - (lookedAt[token] ?? 0))
      lookedAt[token] = now
    }
  }

  for (let token = 0; token < tokens; token++) queue.add(token)
  for (let tick = 1; tick <= 400; tick++) {
    const now = tick * tickMs + ((tick * 7) % 13) // up to 12 ms late
    if (traffic && (tick * tickMs) % traffic.everyMs === 0) look(queue.takeDue(now, traffic.places), now)
    for (let due = queue.takeForCall(now); due !== null; due = queue.takeForCall(now)) {
      calls.push(now)
      look(due, now)
    }
  }
  return { calls, looksPerToken: looks / tokens, lookedAt, maxGapMs, maxSize }
}

describe('the looks at held tokens', () => {
  for (const [tokens, callsPerSecond] of [
    [1, 1],
    [255, 1],
    [256, 2],
    [1000, 4],
    [10_000, 40],
  ] as const) {
    it(`at ${tokens} take ${callsPerSecond} calls a second, each token once, if no other call leaves`, () => {
      const { calls, looksPerToken, lookedAt, maxGapMs, maxSize } = simulate(tokens)
      expect(calls.length).to.be.within(9.5 * callsPerSecond, 10 * callsPerSecond + 1)
      expect(lookedAt.length).to.equal(tokens)
      expect(looksPerToken).to.be.within(9, 10.5)
      expect(maxGapMs).to.be.at.most(1100)
      expect(maxSize).to.be.at.most(255)
    })
  }

  it('at 10,000 tokens that were held at the same moment are spread over the second', () => {
    const { calls } = simulate(10_000)
    for (let from = 0; from < 10_000; from += 100) {
      expect(calls.filter(at => at >= from && at < from + 100).length).to.be.within(2, 6)
    }
  })

  it('need no call of their own if calls of requests have enough places', () => {
    const { calls, looksPerToken, maxGapMs } = simulate(200, { everyMs: 50, places: 250 })
    expect(calls.length).to.be.at.most(1)
    expect(looksPerToken).to.be.within(10, 11.5)
    expect(maxGapMs).to.be.at.most(1000)
  })

  it('share the work if calls of requests have few places, and no token waits for longer', () => {
    const alone = simulate(1000)
    const { calls, looksPerToken, maxGapMs } = simulate(1000, { everyMs: 25, places: 10 })
    expect(calls.length).to.be.below(alone.calls.length)
    expect(looksPerToken).to.be.within(9, 12)
    expect(maxGapMs).to.be.at.most(1100)
  })

  it('are not made up for after a pause', () => {
    const queue = createLookQueue<number>({ maxBatch: 255 })
    for (let token = 0; token < 10_000; token++) queue.add(token)
    queue.takeForCall(1000)
    let calls = 0
    while (queue.takeForCall(60_000) !== null) calls++
    expect(calls).to.equal(1)
  })

  it('of a token that is held shortly after a call of its own wait until a second has passed since that call', () => {
    const queue = createLookQueue<string>({ maxBatch: 255 })
    queue.add('first')
    expect(queue.takeForCall(5000)).to.deep.equal(['first'])
    queue.add('second')
    expect(queue.takeForCall(5999)).to.equal(null)
    expect(queue.takeForCall(6000)).to.deep.equal(['second', 'first'])
  })

  it('at a new token come first, and a token that was taken out gets none', () => {
    const queue = createLookQueue<string>({ maxBatch: 255 })
    queue.add('old')
    expect(queue.takeForCall(0)).to.deep.equal(['old'])
    queue.add('new')
    queue.add('gone')
    queue.delete('gone')
    expect(queue.takeDue(899, 2)).to.deep.equal(['new'])
    expect(queue.takeDue(900, 2)).to.deep.equal(['old'])
    queue.delete('old')
    expect(queue.takeForCall(5000)).to.deep.equal(['new'])
  })
})
