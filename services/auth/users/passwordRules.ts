// Which passwords a user may choose. Hides what counts as easily guessed; how that is measured is passwordStrength.ts.
// NIST SP 800-63B-4 section 3.1.1.2: length and a blocklist, no composition rules; ASVS 6.2.4, 6.2.11.
import { guessBits, isInDictionary } from './passwordStrength.ts'

export interface PasswordRules {
  /** Code points. */
  minLength: number
}

const maxLength = 256
// Only the beginning is measured: it runs on the thread that validates, for anybody who can send a registration.
const measuredLength = 64 // UTF-16 units
const leastBitsPerCharacter = 3.25 // of the shortest password that is allowed
const maxBitsNeeded = 45 // four uncommon words have 48 and more
const productName = 'latchkey'

/** What is wrong with `password` for this user, completing "password: "; null if nothing is. */
export function whyNotPassword(password: string, username: string, { minLength }: PasswordRules): string | null {
  const normalised = password.normalize('NFKC') // what is hashed: an accent counts once however it was typed
  const length = [...normalised].length
  if (length < minLength) return `expected at least ${minLength} characters; any will do, a sentence is fine`
  if (length > maxLength) return `expected at most ${maxLength} characters`
  const text = normalised.slice(0, measuredLength).toLowerCase()
  const names = [username, username.split('@')[0] as string, productName].filter(name => name.length > 2)
  const isStrong = guessBits(text, names) >= Math.min(leastBitsPerCharacter * minLength, maxBitsNeeded)
  if (isStrong && !isInDictionary(text)) return null
  if (isInDictionary(text) || isInDictionary(text.replace(/[^\p{L}]+$/u, '')))
    return 'this is one of the most common passwords; expected one that others do not use'
  if (names.some(name => text.includes(name))) return 'expected more than your username or the name of this service'
  return 'expected one that is harder to guess: this is little more than common words, names, dates, repetitions or neighbouring keys. Add a few uncommon words'
}
