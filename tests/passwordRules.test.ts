// users/passwordRules.ts: which passwords a user may choose, and why not the others.
import { dictionary } from '@zxcvbn-ts/language-common'
import { expect } from 'chai'
import fc from 'fast-check'
import { whyNotPassword } from '../services/auth/users/passwordRules.ts'

const username = 'ann.smith@example.com'
const whyNot = (password: string, minLength = 15) => whyNotPassword(password, username, { minLength })

const phrase = 'CANARY tandem over the hill, twice' // nothing in it is common
const emoji = '🦊🌵🧭🎷🪁🧊🍋🚲🎲🦉🔭🪴🥁🧵🏔'
const tooCommon = 'this is one of the most common passwords; expected one that others do not use'
const tooRegular = 'expected more than a repetition or a run of neighbouring characters'
const tooNear = 'expected more than your username or the name of this service'

describe('the rules for passwords', () => {
  describe('the length', () => {
    it('is at least 15 code points, or what PASSWORD_MIN_LENGTH says', () => {
      const expected = (n: number) => `expected at least ${n} characters; any will do, a sentence is fine`
      for (const n of [15, 8, 64]) {
        const long = phrase.padEnd(64, phrase)
        expect(whyNot(long.slice(0, n - 1), n)).to.equal(expected(n))
        expect(whyNot(long.slice(0, n), n)).to.equal(null)
      }
    })

    it('is at most 256 code points', () => {
      const long = phrase.repeat(8)
      expect(whyNot(long.slice(0, 256))).to.equal(null)
      expect(whyNot(long.slice(0, 257))).to.equal('expected at most 256 characters')
    })

    it('counts code points: 15 emoji are enough, 14 are not, though they are 28 UTF-16 units', () => {
      expect([...emoji]).to.have.length(15)
      expect(whyNot(emoji)).to.equal(null)
      expect(whyNot([...emoji].slice(1).join(''))).to.include('at least 15')
      expect(whyNot([...emoji].join('').repeat(18).slice(0, 512))).to.equal(null)
    })

    it('counts what is hashed: an accent is the same length however it was typed', () => {
      const accents = 'éàüñôçåâîõ'
      expect(whyNot(accents.normalize('NFD'))).to.include('at least 15')
      for (const form of ['NFC', 'NFD'] as const) {
        expect(whyNot(`${accents} öäëïû`.normalize(form)), form).to.equal(null)
        expect(whyNot(`${accents} öäë`.normalize(form)), form).to.include('at least 15')
      }
    })
  })

  describe('a common password', () => {
    const words = dictionary['passwords-common']
    const sample = words.filter((_, i) => i % Math.floor(words.length / 500) === 0)

    it('is refused, in whatever case and width', () => {
      expect(sample.length).to.be.at.least(500)
      for (const word of sample) {
        const fullWidth = [...word].map(c => (c > ' ' && c <= '~' ? String.fromCodePoint(c.charCodeAt(0) + 65248) : c))
        for (const same of [word, word.toUpperCase(), fullWidth.join('')]) {
          expect(whyNot(same, [...word].length), same).to.equal(tooCommon)
        }
      }
    })

    it('is refused with a few characters or obvious digits behind it', () => {
      for (const word of sample.filter(word => /^\p{L}+$/u.test(word))) {
        for (const end of ['1', '2024', '!!', '123456789', '987654321', '11111111', '20242024', '!!!!!!!!!!']) {
          expect(whyNot(word + end, 8), word + end).to.be.oneOf([tooCommon, whyNot('', 8)])
        }
      }
      for (const password of ['Password1234567', 'administrator!1', 'PASSWORD00000000', 'superman19991999']) {
        expect(whyNot(password), password).to.equal(tooCommon)
      }
    })

    it('may be a word of a longer password', () => {
      for (const password of [
        'password of the week',
        'a dragon, my monkey',
        'letmein or I shall sing',
        'superman 48 1937 5',
      ]) {
        expect(whyNot(password), password).to.equal(null)
      }
    })
  })

  describe('a repetition', () => {
    for (const password of [
      'aaaaaaaaaaaaaaa',
      'abababababababa',
      'abcabcabcabcabca',
      'abcdefgabcdefga',
      '🔑'.repeat(15),
      'éééééééééééééééé',
      'sunshinesunshine',
      'sunshinesunshinesuns',
      '20242024202420242',
      'ababababababab12',
      'foofoofoofoo!!!!!!!!!',
    ]) {
      it(`is refused: ${password}`, () => {
        expect(whyNot(password)).to.be.oneOf([tooRegular, tooCommon])
      })
    }

    it('of a long phrase of one’s own is none', () => {
      expect(whyNot('red kite, red kite, ')).to.equal(null)
      expect(whyNot('violet tandem violet tandem')).to.equal(null)
    })
  })

  describe('a run', () => {
    for (const run of [
      '123456789012345',
      '012345678901234',
      '5678901234567890123456789',
      'abcdefghijklmno',
      'nopqrstuvwxyzabcdefg',
      'qwertyuiopasdfg',
      'qwertyuiopqwerty',
      'asdfghjklasdfgh',
      '1234567890qwertyuiop',
      '1qaz2wsx3edc4rfv5tgb',
    ]) {
      it(`is refused, forwards, backwards and in capitals: ${run}`, () => {
        const backwards = [...run].reverse().join('')
        for (const password of [run, backwards, run.toUpperCase()]) {
          expect(whyNot(password), password).to.be.oneOf([tooRegular, tooCommon])
        }
      })
    }

    it('is refused with a few characters behind it', () => {
      for (const password of ['abcdefghijklm!!', 'lkjhgfdsalkjh2024', 'mnopqrstuvw1234567']) {
        expect(whyNot(password), password).to.equal(tooRegular)
      }
    })

    it('is refused however long it is', () => {
      for (const run of ['0123456789', 'abcdefghijklmnopqrstuvwxyz']) {
        expect(whyNot(run.repeat(26).slice(0, 256))).to.equal(tooRegular)
      }
    })

    it('may be a part of a longer password', () => {
      for (const password of ['abcde and then 777 geese', 'my qwerty is an azerty']) {
        expect(whyNot(password), password).to.equal(null)
      }
    })
  })

  describe('what others know of the user', () => {
    for (const password of [
      'ann.smith@example.com',
      'ANN.SMITH@EXAMPLE.COM!',
      'ann.smithann.smith',
      'ann.smith 2024!',
      'ann.smith1234567890',
      'ａｎｎ．ｓｍｉｔｈ-20241',
      'latchkey-2024-!',
      'Latchkey123456789',
      'my Latchkey key',
      'ann.smith@latchkey',
    ]) {
      it(`is refused as a password: ${password}`, () => {
        expect(whyNot(password)).to.equal(tooNear)
      })
    }

    it('is refused with four characters more, also where short passwords are allowed', () => {
      expect(whyNot('latchkey1937', 8)).to.equal(tooNear)
      expect(whyNot('ann.smith!?', 8)).to.equal(tooNear)
    })

    it('may be a word of a longer password', () => {
      expect(whyNot('latchkey under the green mat')).to.equal(null)
      expect(whyNot('ann.smith likes plum jam')).to.equal(null)
    })

    it('counts from three characters on: two are in every sentence', () => {
      expect(whyNotPassword('banana canan ana', 'an', { minLength: 15 })).to.equal(null)
      expect(whyNotPassword('ant ants antant', 'ant', { minLength: 15 })).to.equal(tooNear)
    })
  })

  it('answer for whatever Unicode there is, in a moment', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 300 }), fc.string({ unit: 'binary' }), (password, name) => {
        const why = whyNotPassword(password, name, { minLength: 15 })
        if ([...password.normalize('NFKC')].length < 15) expect(why).to.include('at least 15')
      }),
    )
    const startedAt = performance.now()
    for (const slow of [`${'a'.repeat(255)}b`, '\ufdfa'.repeat(256), `${'1'.repeat(255)}a`, '🔑'.repeat(256)])
      whyNot(slow)
    expect(performance.now() - startedAt).to.be.below(200) // a few milliseconds, unless it is worse than quadratic
  })
})
