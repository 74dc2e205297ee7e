// The sentences that say why a username or a password cannot be chosen.
import { AppError } from '../../../shared/http/errors.ts'
import type { ChoiceProblem } from '../users/choiceRules.ts'
import { maxPasswordLength } from '../users/passwordRules.ts'
import { maxUsernameBytes, maxUsernameLength } from '../users/usernames.ts'

export function describeChoice(choice: ChoiceProblem): string {
  switch (choice.problem) {
    case 'bad_length':
      return `expected 1 to ${maxUsernameLength} characters`
    case 'too_many_bytes':
      return `expected at most ${maxUsernameBytes} bytes as JSON`
    case 'control_characters':
      return 'expected no control characters'
    case 'invisible_characters':
      return 'expected no invisible characters'
    case 'outer_blanks':
      return 'expected no blanks at the beginning or the end'
    case 'not_an_address':
      return 'expected an e-mail address'
    case 'like_the_password':
      return 'expected one that does not make your password easy to guess'
    case 'too_short':
      return `expected at least ${choice.minLength} characters; any will do, a sentence is fine`
    case 'too_long':
      return `expected at most ${maxPasswordLength} characters`
    case 'too_common':
      return 'this is one of the most common passwords; expected one that others do not use'
    case 'like_a_name':
      return 'expected more than your username or the name of this service'
    case 'guessable':
      return 'expected one that is harder to guess: this is little more than common words, names, dates, repetitions or neighbouring keys. Add a few uncommon words'
  }
}

export function choiceError(choice: ChoiceProblem): AppError {
  return new AppError('invalid_request', `${choice.member}: ${describeChoice(choice)}`)
}

/** An operator wants to set the password of a service account. */
export function hasNoPassword(): AppError {
  return new AppError('conflict', 'A service account has no password.')
}

export function usernameTaken(): AppError {
  return new AppError('conflict', 'This username is taken.')
}
