// The areas of mutation testing, which no other test runs.
import { globSync } from 'node:fs'
import { expect } from 'chai'
import { areas } from '../../tools/mutationAreas.ts'

describe('the areas of mutation testing', () => {
  for (const [name, { sources, tests }] of Object.entries(areas)) {
    it(`match files: ${name}`, () => {
      expect([...sources, ...tests].filter(pattern => globSync(pattern).length === 0)).to.deep.equal([])
    })
  }
})
