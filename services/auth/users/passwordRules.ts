// Which passwords a user may choose. Hides the list of common ones and what counts as easily guessed.
// NIST SP 800-63B-4 section 3.1.1.2: length and a blocklist, no composition rules; ASVS 6.2.4, 6.2.11.
import { dictionary } from '@zxcvbn-ts/language-common'

export interface PasswordRules {
  /** Code points. */
  minLength: number
}

const maxLength = 256
const leastUnit = 8 // characters that a repetition must at least repeat
const longestSuffix = 4 // what people append to a common password
const productName = 'latchkey'
// Of the most common passwords in breaches, those that zxcvbn-ts has collected.
const common = new Set(dictionary['passwords-common'].map(word => word.toLowerCase()))
const runs = [
  '0123456789',
  'abcdefghijklmnopqrstuvwxyz',
  'qwertyuiop',
  'asdfghjkl',
  'zxcvbnm',
  '1234567890qwertyuiopasdfghjklzxcvbnm',
  '1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik',
].map(run => run.repeat(Math.ceil(maxLength / run.length) + 1))

/** What is wrong with `password` for this user, completing "password: "; null where it will do. */
export function whyNotPassword(password: string, username: string, { minLength }: PasswordRules): string | null {
  const normalised = password.normalize('NFKC') // what is hashed: an accent counts once however it was typed
  const length = [...normalised].length
  if (length < minLength) return `expected at least ${minLength} characters; any will do, a sentence is fine`
  if (length > maxLength) return `expected at most ${maxLength} characters`
  const text = normalised.toLowerCase()
  const core = text.replace(/[^\p{L}]+$/u, '')
  const hasWeakEnd = isWeakEnd(text.slice(core.length))
  if (common.has(text) || (common.has(core) && hasWeakEnd))
    return 'this is one of the most common passwords; expected one that others do not use'
  if (isObvious(text) || (isObvious(core) && hasWeakEnd))
    return 'expected more than a repetition or a run of neighbouring characters'
  const names = [username, username.split('@')[0] as string, productName].filter(name => name.length > 2)
  const rest = names.reduce((left, name) => left.replaceAll(name, ''), text)
  if (rest !== text && ([...rest].length < minLength / 2 || isWeakEnd(rest)))
    return 'expected more than your username or the name of this service'
  return null
}

/** What people append to what will not do: a few characters, or more of them that are no harder to guess. */
function isWeakEnd(text: string): boolean {
  return text.length <= longestSuffix || isObvious(text)
}

function isObvious(text: string): boolean {
  return isRun(text) || isRepetition(text)
}

/** Also backwards, and beginning anew at its end. */
function isRun(text: string): boolean {
  const backwards = [...text].reverse().join('')
  return runs.some(run => run.includes(text) || run.includes(backwards))
}

/** The same few characters, or the same common password, again and again; the last time perhaps not to its end. */
function isRepetition(text: string): boolean {
  let period = 1
  while (!text.startsWith(text.slice(period))) period++
  const isRepeated = 2 * period <= text.length
  return isRepeated && (period < leastUnit || common.has(text.slice(0, period)))
}
