// Which strings name the same user, and which can be chosen as usernames. Hides the traps of Unicode.
import { z } from 'zod'

/** Code points of the normalised form. */
export const maxUsernameLength = 256
/** Limit for the username as JSON. A verdict has at most 1024 bytes, and also holds a user id and four numbers. */
export const maxUsernameBytes = 640

/** Why a username cannot be chosen. */
export type UsernameProblem =
  | 'bad_length'
  | 'too_many_bytes'
  | 'control_characters'
  | 'invisible_characters'
  | 'outer_blanks'
  | 'not_an_address'

/**
 * The form in which usernames are stored and compared: NFKC and lower case, repeated until nothing changes, because the
 * lower case of a string in NFKC is not always in NFKC (`J` with a caron).
 */
export function normalise(username: string): string {
  const once = normaliseOnce(username)
  return once === username ? once : normalise(once)
}

/** The form that earlier versions stored: one round of `normalise`, which may not be enough. */
function normaliseOnce(username: string): string {
  return username.normalize('NFKC').toLowerCase()
}

/**
 * The stored names that `username` can stand for, in the order in which to look them up; empty if no user can have it. The
 * few strings that an earlier version stored in another form have two names, the earlier version's first.
 */
export function namesToLookUp(username: string): string[] {
  const names = new Set([normaliseOnce(username), normalise(username)])
  return [...names].filter(name => storageProblem(name) === null)
}

/** Null if the username can be chosen. */
export function usernameProblem(
  username: string,
  { addressesOnly }: { addressesOnly: boolean },
): UsernameProblem | null {
  const normalised = normalise(username)
  // Zero-width characters, bidirectional controls and fillers make two different names look the same.
  if (/\p{Cf}|\p{Default_Ignorable_Code_Point}/u.test(username + normalised)) return 'invisible_characters'
  const problem = storageProblem(normalised)
  if (problem !== null) return problem
  return addressesOnly && !isAddress(normalised) ? 'not_an_address' : null
}

/** The rules that hold for every stored name, including those that an earlier version accepted. */
function storageProblem(normalised: string): UsernameProblem | null {
  const length = [...normalised].length
  if (length < 1 || length > maxUsernameLength) return 'bad_length'
  if (Buffer.byteLength(JSON.stringify(normalised)) > maxUsernameBytes) return 'too_many_bytes'
  if (/\p{Cc}|\p{Cs}|\p{Cn}|\p{Zl}|\p{Zp}/u.test(normalised)) return 'control_characters'
  if (normalised.trim() !== normalised) return 'outer_blanks'
  return null
}

const mailbox = z.email().max(254) // RFC 5321 section 4.5.3.1.3, less the angle brackets

/** Whether this is one mailbox, without quotes, comments or a list, so that a mail goes to exactly what was checked. */
export function isAddress(username: string): boolean {
  return mailbox.safeParse(username).success
}
