// The tables of --compare.
import { expect } from 'chai'
import { compareResults } from '../../bench/compare.ts'

const result = (results: Record<string, Record<string, [perSecond: number, cpuPerRequest: number]>>) => ({
  machine: 'a machine',
  date: '2026-11-29',
  command: 'npm run bench',
  results: Object.fromEntries(
    Object.entries(results).map(([connections, rows]) => [
      connections,
      Object.fromEntries(
        Object.entries(rows).map(([name, [perSecond, cpuPerRequest]]) => [
          name,
          { perSecond, cpuPerRequest, p50: 1, p99: 1 },
        ]),
      ),
    ]),
  ),
})
const rowsOf = (text: string) =>
  text
    .split('\n')
    .filter(line => line.startsWith('| ') && !line.includes('now'))
    .map(line => line.slice(2, -2).split(' | '))

describe('a comparison', () => {
  it('divides now by before, and that by the same ratio of the reference row', () => {
    const before = result({ 64: { Latchkey: [10_000, 50], 'bare Koa, no check': [20_000, 30] } })
    const now = result({ 64: { Latchkey: [6000, 60], 'bare Koa, no check': [10_000, 60] } })
    expect(rowsOf(compareResults(before, now))).to.deep.equal([
      ['Latchkey', '10,000', '6,000', '0.60', '1.20', '50.0', '60.0', '1.20', '0.60'],
      ['bare Koa, no check', '20,000', '10,000', '0.50', '1.00', '30.0', '60.0', '2.00', '1.00'],
    ])
  })

  it('has no relative change if a run lacks the reference row', () => {
    const before = result({ 64: { Latchkey: [10_000, 50], 'bare Koa, no check': [20_000, 30] } })
    const now = result({ 64: { Latchkey: [5000, 50] } })
    expect(rowsOf(compareResults(before, now))).to.deep.equal([
      ['Latchkey', '10,000', '5,000', '0.50', '–', '50.0', '50.0', '1.00', '–'],
    ])
  })

  it('has a table for each number of connections that both runs have, with their common rows', () => {
    const before = result({ 1: { a: [1, 1], b: [1, 1] }, 64: { a: [1, 1] }, 256: { a: [1, 1] } })
    const now = result({ 1: { b: [1, 1], c: [1, 1] }, 64: { a: [1, 1] }, 1000: { a: [1, 1] } })
    const text = compareResults(before, now)
    expect(rowsOf(text).map(([name]) => name)).to.deep.equal(['b', 'a'])
    expect(text.match(/\d+ connections?/g)).to.deep.equal(['1 connection', '64 connections'])
  })
})
