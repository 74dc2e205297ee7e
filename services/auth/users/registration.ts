// The two ways to create a user: users register themselves, or the operator adds them.
import type { Throttles } from '../defence/throttles.ts'
import type { Attributes } from './attributes.ts'
import type { ChoiceProblem } from './choiceRules.ts'
import type { Credentials } from './credentials.ts'
import { noPassword, serviceAccountMark } from './directory.ts'
import type { Links } from './links.ts'
import type { Client } from './passwords.ts'
import type { UserRecord, Users } from './users.ts'

type InsertOutcome =
  | { outcome: 'registered'; user: UserRecord }
  /** Another user has this username. */
  | { outcome: 'taken' }

export type RegistrationOutcome =
  | InsertOutcome
  /** A mail explains the next step. Only the owner of the address learns whether it has an account already. */
  | { outcome: 'mailed' }
  | { outcome: 'rejected'; problem: ChoiceProblem }

export type AdditionOutcome =
  | InsertOutcome
  /** A password is required, because no mail can go to this username to ask for one. */
  | { outcome: 'no_password' }
  | { outcome: 'rejected'; problem: ChoiceProblem }

export type ServiceAdditionOutcome = Exclude<AdditionOutcome, { outcome: 'no_password' }>

export interface Addition {
  username: string
  password: string | null
  attributes?: Attributes | undefined
  email?: string | undefined
}

type Extras = Omit<Addition, 'username' | 'password'>

export interface Registration {
  /** Whether users can register themselves. If not, `register` must not be called. */
  isOpen: boolean

  /** Throws `too_many_requests` if the limits of the address or the account are reached. */
  register(credentials: Credentials, client: Client): Promise<RegistrationOutcome>

  /** Adds a user at an operator's request. Without a password, the user chooses one by a mailed link. */
  add(user: Addition, client: Client): Promise<AdditionOutcome>

  /** Adds a user without a password, for a program, at an operator's request. */
  addServiceAccount(user: Omit<Addition, 'password'>): Promise<ServiceAdditionOutcome>
}

export interface RegistrationOptions {
  users: Pick<Users, 'problemWithUsername' | 'problemWithServiceName' | 'problemWithPassword' | 'hash' | 'insert'>
  links: Pick<Links, 'registerUnconfirmed' | 'canMail' | 'offerReset'>
  throttles: Pick<Throttles, 'requireRegistrationAllowed'>
  isOpen: boolean
  /** Whether a new user has to confirm the address before the first log-in. */
  needsConfirmation: boolean
}

export function createRegistration({
  users,
  links,
  throttles,
  isOpen,
  needsConfirmation,
}: RegistrationOptions): Registration {
  const problemWith = (credentials: Credentials) =>
    users.problemWithUsername(credentials.username) ?? users.problemWithPassword(credentials)

  async function insert(credentials: Credentials, client: Client, extras: Extras = {}): Promise<InsertOutcome> {
    const passwordHash = await users.hash(credentials, client)
    const user = await users.insert({ username: credentials.username, passwordHash, ...extras })
    return user ? { outcome: 'registered', user } : { outcome: 'taken' }
  }

  return {
    isOpen,

    async register(credentials, client) {
      const problem = problemWith(credentials) // a rejected choice is not counted, because the client will try again
      if (problem !== null) return { outcome: 'rejected', problem }
      await throttles.requireRegistrationAllowed(client.address)
      if (!needsConfirmation) return insert(credentials, client)
      await links.registerUnconfirmed(credentials, client)
      return { outcome: 'mailed' }
    },

    async add({ username, password, ...extras }, client) {
      const problem = password === null ? users.problemWithUsername(username) : problemWith({ username, password })
      if (problem !== null) return { outcome: 'rejected', problem }
      if (password !== null) return insert({ username, password }, client, extras)
      if (!links.canMail({ username, email: extras.email ?? null })) return { outcome: 'no_password' }
      const user = await users.insert({ username, passwordHash: noPassword, ...extras }, { confirmed: false })
      if (user === null) return { outcome: 'taken' }
      await links.offerReset(user, client)
      return { outcome: 'registered', user }
    },

    async addServiceAccount({ username, ...extras }) {
      const problem = users.problemWithServiceName(username)
      if (problem !== null) return { outcome: 'rejected', problem }
      const user = await users.insert({ username, passwordHash: serviceAccountMark, ...extras })
      return user ? { outcome: 'registered', user } : { outcome: 'taken' }
    },
  }
}
