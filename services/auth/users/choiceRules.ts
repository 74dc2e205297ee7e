// Which usernames and passwords can be chosen, under the settings of this Auth.
import { type PasswordProblem, type PasswordRules, passwordProblem } from './passwordRules.ts'
import { normalise, type UsernameProblem, usernameProblem } from './usernames.ts'

/** Why a username or a password cannot be chosen. */
export type ChoiceProblem =
  | { member: 'username'; problem: UsernameProblem | 'like_the_password' }
  | { member: 'password'; problem: PasswordProblem; minLength: number }

export interface ChoiceRulesOptions {
  rules: PasswordRules
  /** Whether usernames must be e-mail addresses. */
  addressesOnly: boolean
}

export interface ChoiceRules {
  /** Null if the username can be chosen. */
  problemWithUsername(username: string): ChoiceProblem | null

  /** Like `problemWithUsername`, for a service account: no mail goes there, so the name need not be an address. */
  problemWithServiceName(username: string): ChoiceProblem | null

  /** Null if the user of this name can choose the password. */
  problemWithPassword(credentials: { username: string; password: string }): ChoiceProblem | null
}

export function createChoiceRules({ rules, addressesOnly }: ChoiceRulesOptions): ChoiceRules {
  function problemWithName(username: string, options: { addressesOnly: boolean }): ChoiceProblem | null {
    const problem = usernameProblem(username, options)
    return problem && { member: 'username', problem }
  }

  return {
    problemWithUsername: username => problemWithName(username, { addressesOnly }),
    problemWithServiceName: username => problemWithName(username, { addressesOnly: false }),

    problemWithPassword({ username, password }) {
      const problem = passwordProblem(password, normalise(username), rules)
      return problem && { member: 'password', problem, minLength: rules.minLength }
    },
  }
}
