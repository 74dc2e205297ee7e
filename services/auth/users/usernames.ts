// Usernames: which strings name the same user, and which may be chosen. Hides Unicode's traps.
import { z } from 'zod'

const maxLength = 256 // code points, once normalised
const maxBytes = 640 // as JSON: a verdict has at most 1024, and holds a user id and four numbers besides

/**
 * The form in which usernames are stored and compared: NFKC and lower case, repeated until nothing changes, because the
 * lower case of a string in NFKC is not always in NFKC (`J` with a caron).
 */
export function normalise(username: string): string {
  const once = normaliseOnce(username)
  return once === username ? once : normalise(once)
}

/** What earlier versions stored. The last step may be missing. */
function normaliseOnce(username: string): string {
  return username.normalize('NFKC').toLowerCase()
}

/**
 * The stored names that `username` may stand for, in the order in which to look them up; empty if no user can have it. More
 * than one only for the few strings that an earlier version stored in another form: what was typed then is found first.
 */
export function namesToLookUp(username: string): string[] {
  const names = new Set([normaliseOnce(username), normalise(username)])
  return [...names].filter(name => whyNotStorable(name) === null)
}

/** What is wrong with a username that is being chosen, completing "username: "; null if nothing is. */
export function whyNotUsername(username: string, { addressesOnly }: { addressesOnly: boolean }): string | null {
  const normalised = normalise(username)
  // Zero-width characters, bidirectional controls, fillers: two names that look the same.
  if (/\p{Cf}|\p{Default_Ignorable_Code_Point}/u.test(username + normalised)) return 'expected no invisible characters'
  const problem = whyNotStorable(normalised)
  if (problem !== null) return problem
  return addressesOnly && !isAddress(normalised) ? 'expected an e-mail address' : null
}

/** The rules that hold for every stored name, also those that an earlier version accepted. */
function whyNotStorable(normalised: string): string | null {
  const length = [...normalised].length
  if (length < 1 || length > maxLength) return `expected 1 to ${maxLength} characters`
  if (Buffer.byteLength(JSON.stringify(normalised)) > maxBytes) return `expected at most ${maxBytes} bytes as JSON`
  if (/\p{Cc}|\p{Cs}|\p{Cn}|\p{Zl}|\p{Zp}/u.test(normalised)) return 'expected no control characters'
  if (normalised.trim() !== normalised) return 'expected no blanks at its ends'
  return null
}

const mailbox = z.email().max(254) // RFC 5321 section 4.5.3.1.3, less the angle brackets

/** One mailbox, without quotes, comments or a list: what was checked is what a mail goes to. */
export function isAddress(username: string): boolean {
  return mailbox.safeParse(username).success
}
