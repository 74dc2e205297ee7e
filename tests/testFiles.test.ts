// The size of test files.
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
