// The size of test files, and what they pass on to the processes that they start.
import { globSync, readFileSync } from 'node:fs'
import { expect } from 'chai'

const maxLines = 600

describe('a test file', () => {
  it(`has at most ${maxLines} lines`, () => {
    const long = globSync(['tests/**/*.ts', 'prove/tests/**/*.ts'])
      .map(file => ({ file, lines: readFileSync(file, 'utf8').split('\n').length - 1 }))
      .filter(({ lines }) => lines > maxLines)
    expect(long).to.deep.equal([])
  })
})

describe('a process that a test starts', () => {
  it('measures no coverage', () => {
    expect(process.env['NODE_V8_COVERAGE']).to.equal(undefined)
  })

  it('reads compiled code from the cache', () => {
    expect(process.env['NODE_COMPILE_CACHE']).to.equal(process.env['TEST_COMPILE_CACHE'])
  })
})
