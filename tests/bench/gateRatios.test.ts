// What npm run bench:gate refuses.
import { expect } from 'chai'
import { type Costs, compareRatios, ratioRows } from '../../bench/gateRatios.ts'

const rows = (latchkey: number, noCheck: number, cached: number, bare: number) => ({
  Latchkey: [latchkey],
  'no check': [noCheck],
  'fast-jwt HS256, cached': [cached],
  'bare Koa, no check': [bare],
})
const worse = (before: Costs, now: Costs) =>
  compareRatios(before, now, 0.1)
    .filter(({ isWorse }) => isWorse)
    .map(({ name }) => name)

describe('the gate', () => {
  const before = rows(60, 40, 50, 30)

  it('passes on a machine that is slower in all rows, and if all became cheaper', () => {
    expect(worse(before, rows(120, 80, 100, 60))).to.deep.equal([])
    expect(worse(before, rows(50, 35, 45, 30))).to.deep.equal([])
  })

  it('passes up to the tolerance and refuses each ratio above it', () => {
    expect(worse(before, rows(65, 40, 50, 30))).to.deep.equal([])
    expect(worse(before, rows(67, 40, 50, 30))).to.deep.equal([
      'Latchkey / no check',
      'Latchkey / bare Koa, no check',
      'Latchkey / fast-jwt HS256, cached',
    ])
    expect(worse(before, rows(60, 45, 50, 30))).to.deep.equal(['no check / bare Koa, no check'])
  })

  it('takes the median of the ratios within a round, so a busy moment affects both rows', () => {
    const twoRows = (latchkey: number[], noCheck: number[]) => ({ Latchkey: latchkey, 'no check': noCheck })
    const [ratio] = compareRatios(twoRows([60], [40]), twoRows([120, 61, 240], [80, 40, 40]), 0.1)
    expect(ratio).to.deep.equal({ name: 'Latchkey / no check', before: 1.5, now: 61 / 40, isWorse: false })
  })

  it('refuses a ratio that has no value', () => {
    const { 'no check': _, ...incomplete } = before
    expect(worse(before, incomplete)).to.deep.equal(['Latchkey / no check', 'no check / bare Koa, no check'])
  })

  it('compares rows of npm run bench', () => {
    expect(ratioRows).to.have.members(Object.keys(before))
  })
})
