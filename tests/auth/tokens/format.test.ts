// tokens/format.ts: the shape of a secret.
import { readFileSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { expect } from 'chai'
import { type TokenRecord, tagOf } from '../../../services/auth/stores/tokenPort.ts'
import {
  drawSecret,
  drawTokenId,
  issuedAtOf,
  isTokenId,
  opaqueFormat,
  parseSecret,
  refOf,
} from '../../../services/auth/tokens/format.ts'

const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

const now = Date.UTC(2026, 10, 20, 9, 15, 57, 123)
const id = drawTokenId('a user', now)

describe('the format of a token', () => {
  it('is lk_, its id, 256 random bits and a checksum, in base62', () => {
    expect(drawSecret(id)).to.match(new RegExp(`^lk_${id}[0-9A-Za-z]{49}$`))
  })

  it('has the shape that docs/security-requirements.md gives to secret scanners', () => {
    const [, pattern = ''] =
      /secret scanners can look for `(.*?)`/i.exec(readFileSync('docs/security-requirements.md', 'utf8')) ?? []
    for (let i = 0; i < 100; i++) expect(drawSecret(id)).to.match(new RegExp(`^${pattern}$`))
  })

  it('is parsed into its id and its SHA-256', () => {
    const secret = drawSecret(id)
    const ref = parseSecret(secret)
    expect(ref).to.deep.equal(refOf(secret))
    expect(ref?.id).to.equal(id)
    expect(Buffer.from(String(ref?.hash), 'base64url')).to.have.length(32)
  })

  it('is refused when any one character differs', () => {
    const secret = drawSecret(id)
    for (let i = 0; i < secret.length; i++) {
      for (const other of [...alphabet, '_', '-']) {
        if (other === secret[i]) continue
        expect(parseSecret(secret.slice(0, i) + other + secret.slice(i + 1)), `at ${i}`).to.equal(null)
      }
    }
  })

  it('is refused when it is longer, shorter, padded, or in another case', () => {
    const secret = drawSecret(id)
    const others = ['', 'lk_', `${secret}0`, secret.slice(0, -1), ` ${secret}`, `${secret}\n`, `${secret}\0`]
    for (const other of [...others, secret.toUpperCase(), secret.repeat(40)]) expect(parseSecret(other)).to.equal(null)
  })

  it('is refused in spite of a correct checksum if its prefix, its length or a character is wrong', () => {
    const seal = (text: string) => {
      let digits = ''
      for (let rest = crc32(text); digits.length < 6; rest = Math.floor(rest / 62))
        digits = alphabet[rest % 62] + digits
      return text + digits
    }
    const body = drawSecret(id).slice(0, -6)
    expect(parseSecret(seal(body))).to.not.equal(null)
    for (const other of [`LK_${body.slice(3)}`, `${body}0`, body.slice(0, -1), `${body.slice(0, -1)}-`, '']) {
      expect(parseSecret(seal(other)), other).to.equal(null)
    }
  })

  it('repeats no secret and uses all characters equally often', () => {
    const secrets = Array.from({ length: 20_000 }, () => drawSecret(id))
    expect(new Set(secrets).size).to.equal(secrets.length)
    const counts = new Map<string, number>()
    for (const secret of secrets) {
      for (const character of secret.slice(17, 60)) counts.set(character, (counts.get(character) ?? 0) + 1)
    }
    const expected = (secrets.length * 43) / 62
    const chiSquare = [...alphabet].reduce((sum, c) => sum + ((counts.get(c) ?? 0) - expected) ** 2 / expected, 0)
    expect(chiSquare).to.be.below(130) // with 61 degrees of freedom, chi-square is above 130 by chance once in a million runs
  })

  it('keeps a lineage of its own through renewals, and gets 130 new random bits each time', async () => {
    const { lineageOf } = opaqueFormat
    const draw = async (token: TokenRecord, renewed: string | null) => {
      const { secret, ref } = await opaqueFormat.draw(token, renewed)
      expect(ref).to.deep.equal(refOf(secret))
      return secret
    }
    const token = { id } as TokenRecord
    const first = await draw(token, null)
    const secrets = [first]
    for (let i = 0; i < 50; i++) secrets.push(await draw(token, secrets.at(-1) as string))
    for (const secret of secrets) {
      expect(parseSecret(secret)?.id).to.equal(id)
      expect(lineageOf(secret)).to.equal(lineageOf(first))
    }
    expect(new Set(secrets.map(secret => secret.slice(38, 60))).size).to.equal(secrets.length)
    const others = await Promise.all(Array.from({ length: 50 }, () => draw(token, null)))
    const lineages = [first, ...others].map(lineageOf)
    expect(new Set(lineages).size).to.equal(lineages.length)
    expect(Buffer.from(lineageOf(first), 'base64url')).to.have.length(32)
    const otherId = drawTokenId('a user', now + 1000)
    expect(lineageOf(first.replace(id, otherId))).to.not.equal(lineageOf(first))
  })

  it('gives all tokens of a user the same tag, and guests random tags', () => {
    expect(tagOf('a user'))
      .to.equal(tagOf('a user'))
      .and.to.match(/^[0-9A-Za-z]{4}$/)
    // Stores use the tag as a key, so a new version of Latchkey must find the tokens of the previous one.
    expect(tagOf('a user')).to.equal('P9tP')
    expect(drawTokenId('a user', now)).to.match(new RegExp(`^${tagOf('a user')}[0-9A-Za-z]{10}$`))
    expect(new Set(Array.from({ length: 1000 }, (_, i) => tagOf(`user ${i}`))).size).to.be.above(990)
    expect(new Set(Array.from({ length: 1000 }, () => drawTokenId(null, now).slice(0, 4))).size).to.be.above(990)
  })

  it('draws ids that rarely collide and that show when they were drawn but nothing of the secret', () => {
    expect(new Set(Array.from({ length: 1000 }, () => drawTokenId('a user', now))).size).to.be.above(997)
    expect(issuedAtOf(id)).to.equal(Date.UTC(2026, 10, 20, 9, 15, 57))
    expect(issuedAtOf(drawTokenId(null, Date.UTC(2050, 0)))).to.equal(Date.UTC(2050, 0))
    expect(isTokenId(id)).to.equal(true)
    for (const other of ['', id.slice(1), `${id}0`, id.replace(/.$/, '!')]) expect(isTokenId(other)).to.equal(false)
    expect(drawSecret(id)).to.not.equal(drawSecret(id))
  })
})
