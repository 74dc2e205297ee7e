// tokens/format.ts: the secret's shape.
import { expect } from 'chai'
import { drawSecret, parseSecret, tagOf } from '../services/auth/tokens/format.ts'

describe('the format of a token', () => {
  it('is lk_, a routing tag, 256 random bits and a checksum, in base62', () => {
    expect(drawSecret('Abcd')).to.match(/^lk_Abcd[0-9A-Za-z]{49}$/)
  })
})
void [parseSecret, tagOf]
