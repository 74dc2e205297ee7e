// Estimates how many guesses a password withstands. Hides the dictionaries and the model: the cheapest way to write the
// password as words, repetitions, paths over a keyboard, dates and single characters. Uses the dictionaries of zxcvbn, but
// not its estimator, which blocks the thread for hundreds of milliseconds and rates five common words as strong.
import { createRequire } from 'node:module'

const maxRankOfNames = 10_000
const minSaving = 3 // bits; words that save less, such as most words of two or three letters, occur in every random string
const maxAppended = 4 // signs after a word
const pathMemory = 8 // steps; a pattern that repeats after more is not recognised
const minPath = 4 // keys; paths of three occur in every random string
const firstKeyBits = 5
const enoughBits = 64 // no password with this many bits is refused, so counting can stop
const offKeyboard = -1
/** Phrases made famous by guides, films and books, which no package contains. */
const famousPhrases = [
  'correct horse battery staple',
  'to be or not to be that is the question',
  'the quick brown fox jumps over the lazy dog',
  'may the force be with you',
  'lorem ipsum dolor sit amet',
  'all your base are belong to us',
  'it was the best of times it was the worst of times',
  'in the beginning was the word',
  'we the people of the united states',
  'four score and seven years ago',
  'call me ishmael',
  'our father who art in heaven',
  'you shall not pass',
  'twinkle twinkle little star',
  'once upon a time in a galaxy far far away',
  'a long time ago in a galaxy far far away',
  'supercalifragilisticexpialidocious',
].map(phrase => phrase.replaceAll(' ', ''))
const phraseBits = Math.log2(famousPhrases.length) + 2

/** The rows of each keyboard. A shifted character counts as its key; a character without a key ends a path. */
const layouts = [
  ['`1234567890-=', ' qwertyuiop[]', " asdfghjkl;'\\", ' zxcvbnm,./'],
  ['^1234567890', ' qwertzuiopü', ' asdfghjklöä', ' yxcvbnm,.-'],
  ['²1234567890', ' azertyuiop^$', ' qsdfghjklmù', ' wxcvbn,;:'],
  ['`1234567890[]', " ',.pyfgcrl/=", ' aoeuidhtns-', ' ;qjkxbmwvz'],
  ['789', '456', '123', '0'],
  ['abcdefghijklmnopqrstuvwxyz'],
].map(coordinatesOf)
const shifted = new Map([...'~!@#$%^&*()_+{}|:"<>?'].map((key, i) => [key, "`1234567890-=[]\\;',./"[i] as string]))

/** Pairs of a sign and the letter that it replaces. Two lists, because some signs stand for two letters. */
const substitutions = ['4a@a8b(c3e€e6g9g1i!i|i0o$s5s7t+t2z', '4a@a8b<c3e€e9q1l!l|l0o$s5s7l+t2r'].map(
  pairs => new Map(Array.from({ length: pairs.length / 2 }, (_, i) => [pairs.charAt(2 * i), pairs.charAt(2 * i + 1)])),
)

interface Dictionary {
  /** Word -> the binary logarithm of its rank. */
  bitsOf: Map<string, number>
  longest: number
  /** The characters that words begin with. */
  initials: Set<string>
}

let dictionary: Dictionary | null = null

/** Loads the dictionaries, which takes about 0.1 s. Call it early; otherwise the first password pays for it. */
export function loadDictionary(): Dictionary {
  if (dictionary !== null) return dictionary
  // Not an `import`, which would delay the start of every process, even of one that checks no password.
  const require = createRequire(import.meta.url)
  const { dictionary: common } = require('@zxcvbn-ts/language-common') as typeof import('@zxcvbn-ts/language-common')
  const { dictionary: english } = require('@zxcvbn-ts/language-en') as typeof import('@zxcvbn-ts/language-en')
  const bitsOf = new Map<string, number>()
  const add = (word: string, bits: number) => {
    const known = bitsOf.get(word)
    if (known === undefined || bits < known) bitsOf.set(word, bits)
  }
  const addRanked = (words: readonly string[]) => {
    for (const [rank, word] of words.entries()) add(word.toLowerCase(), Math.log2(rank + 2))
  }
  addRanked(common['passwords-common'])
  addRanked(english['commonWords-en'] as string[])
  addRanked(english['firstnames-en'] as string[])
  addRanked((english['lastnames-en'] as string[]).slice(0, maxRankOfNames))
  const dice = common['diceware-common'] // sorted alphabetically, so the rank says nothing and all words count as equally likely
  for (const word of dice) add(word, Math.log2(dice.length))
  const words = [...bitsOf.keys()]
  const longest = words.reduce((length, word) => Math.max(length, word.length), 0)
  dictionary = { bitsOf, longest, initials: new Set(words.map(word => word.charAt(0))) }
  return dictionary
}

/** Whether the whole text is a common password or a word. */
export function isInDictionary(text: string): boolean {
  return loadDictionary().bitsOf.has(text)
}

/**
 * The binary logarithm of the number of guesses that an attacker who knows the words in `context` needs to find `text`, which
 * is in lower case.
 */
export function guessBits(text: string, context: string[]): number {
  const { length } = text
  const bits = new Float64Array(length + 1).fill(Infinity)
  bits[0] = 0
  const words = wordsIn(text, context)
  const reach = (to: number, cost: number) => {
    if (cost < (bits[to] as number)) bits[to] = cost
  }
  const copies = longestCopies(text)
  const phrasesAt = phrasesIn(text)
  const paths = layouts.map(layout => placesOf(layout, text))
  for (let from = 0; from < length; from++) {
    const before = bits[from] as number
    reach(from + 1, before + characterBits(text.charCodeAt(from)))
    for (const [to, cost] of words(from)) {
      reach(to, before + cost)
      // Signs after a word, as a separator or at the end: the first costs almost nothing, each further one a little.
      for (let n = 1; n <= maxAppended && isSign(text, to + n - 1); n++) reach(to + n, before + cost + 1.5 * n - 1.2)
    }
    for (let n = 3; n <= (copies[from] as number); n++) reach(from + n, before + 4)
    for (const places of paths) {
      if (places[from] !== offKeyboard) followPath(places, from, (to, cost) => reach(to, before + cost))
    }
    for (const [length, cost] of datesAt(text, from)) reach(from + length, before + cost)
    for (const to of phrasesAt(from)) reach(to, before + phraseBits)
  }
  return bits[length] as number
}

const [digitBits, letterBits, signBits, otherBits] = [Math.log2(10), Math.log2(26), 5, 7]

/** The cost of a random character of this kind. */
function characterBits(code: number): number {
  if (code >= 97 && code <= 122) return letterBits
  if (code >= 48 && code <= 57) return digitBits
  return code < 128 ? signBits : otherBits
}

/** Whether this is an ASCII character that is neither a letter nor a digit. Not a regular expression, which is slower. */
function isSign(text: string, at: number): boolean {
  return at < text.length && characterBits(text.charCodeAt(at)) === signBits
}

/** Returns the ends of the famous phrases that begin at an index, ignoring signs between their letters. */
function phrasesIn(text: string): (from: number) => number[] {
  const places = [...Array(text.length).keys()].filter(at => !isSign(text, at))
  const letters = places.map(at => text[at]).join('')
  return from => {
    const at = places.indexOf(from)
    const found = at < 0 ? [] : famousPhrases.filter(phrase => letters.startsWith(phrase, at))
    return found.map(phrase => (places[at + phrase.length - 1] as number) + 1)
  }
}

/** Yields the end and the cost of each word that begins at an index, even with substitutions or written backwards. */
function wordsIn(text: string, context: string[]) {
  const { bitsOf, longest, initials } = loadDictionary()
  const known = new Map(context.map(word => [word, 1]))
  const maxLength = Math.max(longest, ...context.map(word => word.length))
  const backwards = [...text].reverse().join('')
  const replaced = substitutions.map(signs => text.replace(/./gsu, sign => signs.get(sign) ?? sign))
  const variants = [{ variant: text, bits: 0 }]
  for (const variant of new Set(replaced)) if (variant !== text) variants.push({ variant, bits: 1 })

  const beginsContext = (variant: string, at: number) => context.some(word => variant[at] === word[0])

  return function* words(from: number): Generator<[to: number, bits: number]> {
    const begins = variants.filter(({ variant }) => initials.has(variant.charAt(from)) || beginsContext(variant, from))
    let random = 0
    for (let to = from + 1; to <= Math.min(text.length, from + maxLength); to++) {
      random += characterBits(text.charCodeAt(to - 1))
      let least = Infinity
      for (const { variant, bits } of begins) {
        const word = variant.slice(from, to)
        const found = known.get(word) ?? bitsOf.get(word)
        if (found !== undefined) least = Math.min(least, found + bits)
      }
      const isMirrored = initials.has(text.charAt(to - 1))
      const found = isMirrored ? bitsOf.get(backwards.slice(text.length - to, text.length - from)) : undefined
      if (found !== undefined) least = Math.min(least, found + 2)
      if (least < random - minSaving) yield [to, least]
    }
  }
}

/** For each index, the length of the longest text that begins there and also at an earlier index; the two can overlap. */
function longestCopies(text: string): Uint16Array {
  const longest = new Uint16Array(text.length)
  let next = new Uint16Array(text.length + 1)
  for (let at = text.length - 1; at > 0; at--) {
    const here = new Uint16Array(text.length + 1)
    for (let earlier = 0; earlier < at; earlier++) {
      if (text[earlier] !== text[at]) continue
      const n = 1 + (next[earlier + 1] as number)
      here[earlier] = n
      if (n > (longest[at] as number)) longest[at] = n
    }
    next = here
  }
  return longest
}

/**
 * Follows a path over the keys that begins at `from`; `places` has the position of each character. A step that repeats an
 * earlier one, so that the path continues straight or in a pattern, costs almost nothing. A step to a neighbouring key costs
 * a little, and a jump costs more than a random letter.
 */
function followPath(places: Int16Array, from: number, reach: (to: number, bits: number) => void): void {
  const stepTo = (i: number) => (places[i] as number) - (places[i - 1] as number)
  let period = 0
  let bits = firstKeyBits
  for (let i = from + 1; i < places.length && bits < enoughBits; i++) {
    if (places[i] === offKeyboard) return
    const step = stepTo(i)
    if (period > 0 && stepTo(i - period) === step) bits += 0.2
    else {
      period = 0
      for (let back = 1; back <= Math.min(pathMemory, i - from - 1); back++) {
        if (stepTo(i - back) !== step) continue
        period = back
        break
      }
      bits += isNear(step) ? 2.5 : period > 0 ? 3.3 : 6
    }
    if (i >= from + minPath - 1) reach(i + 1, bits)
  }
}

/** Key -> 100 times its row, plus its column. */
type Layout = Map<string, number>

function coordinatesOf(rows: string[]): Layout {
  const places = rows.flatMap((keys, row) => [...keys].map((key, column) => [key, row * 100 + column] as const))
  return new Map(places.filter(([character]) => character !== ' '))
}

function placesOf(layout: Layout, text: string): Int16Array {
  return Int16Array.from({ length: text.length }, (_, i) => {
    const key = text[i] as string
    return layout.get(key) ?? layout.get(shifted.get(key) ?? '') ?? offKeyboard
  })
}

function isNear(step: number): boolean {
  const distance = Math.abs(step)
  return distance <= 1 || (distance >= 99 && distance <= 101)
}

/** Yields the length and the cost of each year or date that begins at `from`, in the last century or this one. */
function* datesAt(text: string, from: number): Generator<[length: number, bits: number]> {
  const part = text.slice(from, from + 10)
  const year = /^(19\d\d|20[0-3]\d)/.exec(part)
  if (year) yield [4, 6]
  const day =
    /^(\d{1,2}[-/. ]?\d{1,2}[-/. ]?(19\d\d|20[0-3]\d))/.exec(part) ??
    /^((19\d\d|20[0-3]\d)[-/. ]?\d{1,2}[-/. ]?\d{1,2})/.exec(part)
  if (day?.[0]) yield [day[0].length, 15]
}
