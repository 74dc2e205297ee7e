// The files that --json writes and --compare reads.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { readEarlier } from '../../bench/result.ts'

describe('the file of --compare', () => {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-'))
  after(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'earlier.json')
  const figures = { perSecond: 1, p50: 1, p99: 1, cpuPerRequest: 1 }
  const about = { machine: 'a machine', date: '2026-11-29', command: 'npm run bench' }
  const read = (content: string) => {
    writeFileSync(file, content)
    return readEarlier(file, [1, 64], ['Latchkey', 'no check'])
  }

  it('is a result that has at least one row of this run', () => {
    const earlier = { ...about, results: { 64: { Latchkey: figures, other: figures } } }
    expect(read(JSON.stringify(earlier))).to.deep.equal(earlier)
  })

  it('is refused if it does not exist, is not JSON, or is not a result', () => {
    expect(() => readEarlier('nowhere.json', [1], ['Latchkey'])).to.throw('there is no file nowhere.json.')
    expect(() => read('{')).to.throw(/^.*earlier\.json cannot be read as JSON \(/)
    expect(() => read('[]')).to.throw('is not a result of --json')
    const broken = { ...about, results: { 64: { Latchkey: { ...figures, p99: 'slow' } } } }
    expect(() => read(JSON.stringify(broken))).to.throw('is not a result of --json (results > 64 > Latchkey > p99: ')
  })

  it('is refused if it has no row of this run, with the rows that it has', () => {
    const other = { ...about, results: { 8: { Latchkey: figures }, 64: { other: figures, another: figures } } }
    expect(() => read(JSON.stringify(other))).to.throw(
      'has none of the rows of this run (Latchkey; no check, at 1 connection, 64 connections). It has Latchkey (at 8 connections), other; another (at 64 connections).',
    )
  })
})
