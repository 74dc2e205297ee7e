// The size of test files.
import { globSync, readFileSync } from 'node:fs'
import { expect } from 'chai'

const maxLines = 600

/** Still to be split. Do not add to it. */
const exceptions = [
  'prove/tests/checker.test.ts',
  'tests/auth/stores/redis.test.ts',
  'tests/auth/stores/snapshot.test.ts',
  'tests/auth/stores/sql.test.ts',
  'tests/commands/users.test.ts',
  'tests/contracts/tokenStore.ts',
  'tests/shared/http/http.test.ts',
  'tests/shared/log/log.test.ts',
]

describe('a test file', () => {
  it(`has at most ${maxLines} lines`, () => {
    const long = globSync(['tests/**/*.ts', 'prove/tests/**/*.ts'])
      .map(file => ({ file, lines: readFileSync(file, 'utf8').split('\n').length - 1 }))
      .filter(({ file, lines }) => lines > maxLines && !exceptions.includes(file))
    expect(long).to.deep.equal([])
  })
})
