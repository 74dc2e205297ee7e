// The tables in the documents.
import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { documents, withBlocks } from '../../bench/documents.ts'

describe('the tables of the documents', () => {
  for (const file of documents) {
    it(`${file} has the figures of bench/results/`, () => {
      const text = readFileSync(file, 'utf8')
      expect(text).to.match(/<!-- bench [\w -]+ -->/)
      expect(text).to.equal(withBlocks(text))
    })
  }

  it('are replaced within their marks, and nothing else is', () => {
    const text = 'A <!-- bench lone latency -->old<!-- /bench --> B\n<!-- bench costs -->\nold\n<!-- /bench -->\nC'
    const lines = withBlocks(text).split('\n')
    expect(lines[0]).to.match(/^A <!-- bench lone latency -->\d+\.\d\d ms instead of .*<!-- \/bench --> B$/)
    expect(lines[1]).to.equal('<!-- bench costs -->')
    expect(lines[2]).to.match(/^\| CPU time of a request/)
    expect(lines.slice(-2)).to.deep.equal(['<!-- /bench -->', 'C'])
  })

  it('must be known', () => {
    expect(() => withBlocks('<!-- bench nothing --><!-- /bench -->')).to.throw('there is no block nothing')
  })
})
