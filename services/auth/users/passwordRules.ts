// Which passwords can be chosen. Hides how strong a password must be; passwordStrength.ts measures the strength.
// NIST SP 800-63B-4 section 3.1.1.2: length and a blocklist, no composition rules; ASVS 6.2.4, 6.2.11.
import { guessBits, isInDictionary } from './passwordStrength.ts'

export interface PasswordRules {
  /** Code points. */
  minLength: number
}

/** Code points. */
export const maxPasswordLength = 256

/** Why a password cannot be chosen. */
export type PasswordProblem = 'too_short' | 'too_long' | 'too_common' | 'like_a_name' | 'guessable'

// Only the beginning is measured, because measuring takes time on the thread that validates tokens.
const measuredLength = 64 // UTF-16 units
const minBitsPerCharacter = 3.25 // multiplied by the minimum length
const maxBitsNeeded = 45 // four uncommon words have 48 bits or more
const productName = 'latchkey'

/** Null if this user can choose the password. `username` is normalised. */
export function passwordProblem(
  password: string,
  username: string,
  { minLength }: PasswordRules,
): PasswordProblem | null {
  const normalised = password.normalize('NFKC') // the form that is hashed: an accent counts once however it was typed
  const length = [...normalised].length
  if (length < minLength) return 'too_short'
  if (length > maxPasswordLength) return 'too_long'
  const text = normalised.slice(0, measuredLength).toLowerCase()
  const names = [username, username.split('@')[0] as string, productName].filter(name => name.length > 2)
  const isStrong = guessBits(text, names) >= Math.min(minBitsPerCharacter * minLength, maxBitsNeeded)
  if (isStrong && !isInDictionary(text)) return null
  if (isInDictionary(text) || isInDictionary(text.replace(/[^\p{L}]+$/u, ''))) return 'too_common'
  return names.some(name => text.includes(name)) ? 'like_a_name' : 'guessable'
}
