// The buckets behind rates. Redis has its own, which the contract suites compare with these.
import { expect } from 'chai'
import fc from 'fast-check'
import { packedRate, takeFrom, unpackedRate } from '../../../services/auth/stores/rates.ts'

const start = 1_800_000_000_000
const rates = fc.record({ perMinute: fc.integer({ min: 1, max: 100_000 }), burst: fc.integer({ min: 1, max: 50 }) })

describe('a bucket', () => {
  it('never lets more pass in any span of time than its burst and what refills meanwhile', () => {
    const steps = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 5000 })), { maxLength: 300 })
    fc.assert(
      fc.property(rates, steps, (rate, steps) => {
        const bucket = { rate, fullAtUs: 0 }
        const passed: number[] = []
        let now = start
        for (const step of steps) {
          now += step
          if (takeFrom([bucket], now) === 0) passed.push(now)
        }
        for (const [i, from] of passed.entries()) {
          for (const [n, to] of passed.slice(i).entries()) {
            expect(n + 1).to.be.at.most(rate.burst + ((to - from) * rate.perMinute) / 60_000 + 1e-6)
          }
        }
      }),
    )
  })

  it('says exactly when the next one passes', () => {
    fc.assert(
      fc.property(rates, fc.nat({ max: 10_000 }), (rate, late) => {
        const bucket = { rate, fullAtUs: 0 }
        let retryAfterMs = 0
        for (let i = 0; i <= rate.burst; i++) retryAfterMs = takeFrom([bucket], start)
        expect(retryAfterMs).to.be.above(0)
        if (retryAfterMs > 1) expect(takeFrom([{ ...bucket }], start + retryAfterMs - 1)).to.equal(1)
        expect(takeFrom([bucket], start + retryAfterMs + late)).to.equal(0)
      }),
    )
  })

  it('gives a caller of the full rate exactly that, for hours', () => {
    for (const perMinute of [1, 7, 60, 1000]) {
      const bucket = { rate: { perMinute, burst: 1 }, fullAtUs: 0 }
      let passed = 0
      for (let now = start; now < start + 3_600_000; ) {
        const wait = takeFrom([bucket], now)
        if (wait === 0) passed++
        else now += wait
      }
      expect(passed).to.be.within(perMinute * 60 * 0.98, perMinute * 60 + 1)
    }
  })

  it('is left as it was if another one is empty', () => {
    const [full, empty] = [
      { rate: { perMinute: 60, burst: 2 }, fullAtUs: 0 },
      { rate: { perMinute: 60, burst: 1 }, fullAtUs: 0 },
    ]
    expect(takeFrom([empty], start)).to.equal(0)
    expect(takeFrom([full, empty], start)).to.equal(1000)
    expect(full.fullAtUs).to.equal(0)
    expect(takeFrom([], start)).to.equal(0)
  })

  it('has a rate that is the same after it was packed', () => {
    fc.assert(fc.property(rates, rate => void expect(unpackedRate(packedRate(rate))).to.deep.equal(rate)))
  })
})
