// The time that a benchmark still takes.
import { expect } from 'chai'
import { createProgress } from '../../bench/progress.ts'

describe('the progress of a benchmark', () => {
  it('estimates the time left from the plan, and scales it by how long the steps so far have taken', () => {
    let now = 1000
    const printed: string[] = []
    const progress = createProgress(3, 3, {
      monotonicNow: () => now,
      print: text => printed.push(text),
      totalSeconds: 7,
    })
    progress.say('Starting')
    progress.step('warm-up', 1)
    now += 2000 // twice as long as planned
    progress.step('first')
    now += 200_000
    progress.step('second')
    expect(printed).to.deep.equal([
      'Starting …',
      '[1/3] warm-up, about 7 s left',
      '[2/3] first, about 12 s left',
      '[3/3] second, about 3 min left',
    ])
  })
})
