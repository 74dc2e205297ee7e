// Access to the users and their sessions, in a store that is opened here or in the memory of a running Auth.
import type { AuthConfig } from '../../services/auth/config.ts'
import { attributesTooLarge } from '../../services/auth/routes/attributes.ts'
import { choiceError, hasNoPassword, usernameTaken } from '../../services/auth/routes/choiceProblems.ts'
import { isMemoryUrl, listMigrations } from '../../services/auth/stores/index.ts'
import type { TokenStore } from '../../services/auth/stores/tokenPort.ts'
import type { UserRecord, UserStore } from '../../services/auth/stores/userPort.ts'
import { openTokenStoreOfCommand, openUserStoreOfCommand } from '../../services/auth/stores.ts'
import type { Tokens } from '../../services/auth/tokens/tokens.ts'
import { createTokensFrom, createUsersFrom } from '../../services/auth/useCases.ts'
import { type Attributes, attributesOf, createUserAttributes } from '../../services/auth/users/attributes.ts'
import { type Authorities, type AuthorityChanges, createAuthorities } from '../../services/auth/users/authorities.ts'
import { underWayMs } from '../../services/auth/users/credentialVersions.ts'
import { isServiceAccount, serviceAccountMark } from '../../services/auth/users/directory.ts'
import { startHashThreads } from '../../services/auth/users/hashThreads.ts'
import { localClient, openPasswords, type Passwords } from '../../services/auth/users/passwords.ts'
import type { Users } from '../../services/auth/users/users.ts'
import { describeError } from '../errors.ts'
import {
  AuthNotListening,
  createOperatorClient,
  type NewUser,
  type OperatorClient,
  type ShownUser,
} from './operatorClient.ts'
import type { Settings } from './settings.ts'

/** What the commands do with users. False means that the user no longer exists. */
export interface Accounts {
  add(user: NewUser): Promise<ShownUser>
  find(username: string): Promise<ShownUser | null>
  /** At most `limit` users with an id after `afterId`, ordered by id. */
  list(afterId: string | null, limit: number): Promise<ShownUser[]>
  disable(id: string): Promise<boolean>
  enable(id: string): Promise<boolean>
  /** Changes roles and the rate, and pauses or resumes. */
  change(id: string, changes: AuthorityChanges): Promise<boolean>
  /** Replaces all but the profile. */
  setAttributes(id: string, attributes: Attributes): Promise<boolean>
  /** Null removes the address. Ends every session. */
  setEmail(id: string, email: string | null): Promise<boolean>
  /** Ends every session. */
  rename(id: string, username: string): Promise<boolean>
  /** Ends every session. */
  setPassword(id: string, password: string): Promise<boolean>
  remove(id: string): Promise<boolean>
  revokeSessions(id: string): Promise<boolean>
}

/** If `canCreate` is false and the store does not exist yet, it counts as empty and is not created. */
interface StoreOptions {
  canCreate: boolean
}

export interface Backend {
  accounts(options: StoreOptions): Promise<Accounts>
  /** The users in the store. Users in the memory of Auth cannot be reached this way. */
  users(options: StoreOptions): Promise<Users>
  tokens(): Promise<Tokens>
  /** Throws if ADMIN_KEY is not set. */
  operator(): OperatorClient
  close(): Promise<void>
}

/** The change is written, but the tokens are in the memory of an Auth that cannot be reached; Auth will complete the change. */
class LeftToAuth extends Error {}

const bothSettings = 'set USER_STORE_URL to sqlite:path or postgres://… for both Auth and this command'

export function openBackend({ config, authUrl, adminKey }: Settings): Backend {
  const opened: { close(): Promise<void> }[] = []

  function closeLater<T extends { close(): Promise<void> }>(resource: T): T {
    opened.push(resource)
    return resource
  }

  function operator(): OperatorClient {
    if (adminKey === null) throw new Error('ADMIN_KEY is not set, and Auth requires it.')
    return createOperatorClient({ url: authUrl, key: adminKey })
  }

  async function tokenStore(): Promise<TokenStore> {
    return closeLater(await openTokenStoreOfCommand(config.tokenStoreUrl))
  }

  async function tokens(): Promise<Tokens> {
    return createTokensFrom(config, { store: await tokenStore(), now: Date.now, emit: () => {} })
  }

  async function userStore({ canCreate }: StoreOptions): Promise<UserStore> {
    const { userStoreUrl } = config
    return closeLater(await openUserStoreOfCommand(canCreate ? userStoreUrl : await existingStore(userStoreUrl)))
  }

  function usersIn(store: UserStore): Users {
    const passwords = passwordsOnDemand(config.passwordHashCost)
    const revokeTokens: Tokens['revokeByUser'] = (userId, ...rest) =>
      changeTokens(store, userId, {
        inStore: async () => (await tokens()).revokeByUser(userId, ...rest),
        throughAuth: () => operator().revokeSessions(userId),
      })
    return createUsersFrom(config, { store, passwords, revokeTokens, now: Date.now, emit: () => {} })
  }

  /** `changes` are the changes that will be made. */
  function authoritiesIn(store: UserStore, changes: AuthorityChanges): Authorities {
    const setAuthority: TokenStore['setAuthority'] = (userId, authority) =>
      changeTokens(store, userId, {
        inStore: async () => (await tokenStore()).setAuthority(userId, authority),
        throughAuth: () => operator().change(userId, changes),
      })
    return createAuthorities({ users: store, tokens: { setAuthority }, emit: () => {} })
  }

  /** The second step of a change to a user. `throughAuth` resolves to false if Auth does not know the user. */
  async function changeTokens(
    store: UserStore,
    userId: string,
    { inStore, throughAuth }: { inStore: () => Promise<void>; throughAuth: () => Promise<boolean> },
  ): Promise<void> {
    try {
      if (!isMemoryUrl(config.tokenStoreUrl)) return await inStore()
      if (adminKey === null) throw new LeftToAuth('ADMIN_KEY is not set')
      if (await throughAuth()) return
    } catch (error) {
      if (error instanceof AuthNotListening) throw new LeftToAuth(`nothing listens at ${authUrl}`)
      if (error instanceof LeftToAuth) throw error
      throw new Error(
        `${describeError(error)}\nThe user has been changed, but their tokens do not obey yet; Auth will complete the change.`,
      )
    }
    // Auth does not know the user. Auth may have completed a deletion in the meantime.
    if ((await store.findById(userId)) === null) return
    throw new Error(
      `The user has been changed in USER_STORE_URL, but the Auth at ${authUrl} uses another store, so no token obeys yet. Make USER_STORE_URL or AUTH_INTERNAL_URL that of the Auth to which the user belongs; that Auth will complete the change.`,
    )
  }

  return {
    users: async options => usersIn(await userStore(options)),
    tokens,
    operator,

    async accounts(options) {
      if (isMemoryUrl(config.userStoreUrl)) return explainIfNotListening(operator(), authUrl)
      const store = await userStore(options)
      const stored = usersIn(store)
      const change: Accounts['change'] = async (id, changes) =>
        (await authoritiesIn(store, changes).change(id, changes)) !== null
      return {
        ...stored,
        find: async username => shownIfAny(await stored.findByUsername(username)),
        list: async (...page) => (await stored.list(...page)).map(shown),
        change,

        async add(newUser) {
          const { username, roles } = newUser
          const problem =
            'password' in newUser
              ? (stored.problemWithUsername(username) ?? stored.problemWithPassword(newUser))
              : stored.problemWithServiceName(username)
          if (problem !== null) throw choiceError(problem)
          const passwordHash = 'password' in newUser ? await stored.hash(newUser, localClient) : serviceAccountMark
          const user = await stored.insert({ username, passwordHash })
          if (user === null) throw usernameTaken()
          if (roles.length > 0) await change(user.id, { roles }).catch(ignoreIfLeftToAuth) // a new user has no tokens
          return shown(user)
        },

        async setAttributes(id, attributes) {
          const result = await createUserAttributes({ store, emit: () => {} }).replace(id, attributes)
          if (result === 'too_large') throw attributesTooLarge()
          return result !== null
        },

        setEmail: async (id, email) => (await stored.setEmail(id, email)) !== null,

        async rename(id, username) {
          const result = await stored.rename(id, username)
          if (result?.outcome === 'rejected') throw choiceError(result.problem)
          if (result?.outcome === 'taken') throw usernameTaken()
          return result !== null
        },

        async setPassword(id, password) {
          const result = await stored.setPassword(id, password, localClient)
          if (result?.outcome === 'service_account') throw hasNoPassword()
          if (result?.outcome === 'rejected') throw choiceError(result.problem)
          return result !== null
        },
      }
    },

    async close() {
      for (const resource of opened) await resource.close()
    },
  }
}

function shown(user: UserRecord): ShownUser {
  const { authority, passwordHash, attributes, emailTokenId, ...others } = user
  const { roles, paused, rate } = authority
  return { ...others, roles, paused, rate, attributes: attributesOf(user), serviceAccount: isServiceAccount(user) }
}

function shownIfAny(user: UserRecord | null): ShownUser | null {
  return user && shown(user)
}

function ignoreIfLeftToAuth(error: unknown): void {
  if (!(error instanceof LeftToAuth)) throw error
}

/** Starts the hash thread only when it is needed: most commands hash nothing, and the thread doubles their time. */
function passwordsOnDemand(cost: number): Passwords {
  let opening: Promise<Passwords> | null = null
  const opened = () =>
    (opening ??= openPasswords({ cost, threads: startHashThreads(1), maxQueue: 1, maxPerAccount: 2 }))
  return {
    hash: async (...args) => (await opened()).hash(...args),
    verify: async (...args) => (await opened()).verify(...args),
    isOutdated: () => false, // no command logs a user in
    queued: () => 0,
    hashes: () => 0,
    close() {},
  }
}

/** Adds the setting to the error if nothing listens, because the operator may not know where the users are. */
function explainIfNotListening(operator: OperatorClient, authUrl: string): Accounts {
  const explained = <Args extends unknown[], T>(call: (...args: Args) => Promise<T>) => {
    return (...args: Args) =>
      call(...args).catch(error => {
        if (!(error instanceof AuthNotListening)) throw error
        throw new Error(
          `USER_STORE_URL: the users are in the memory of Auth, but nothing listens at ${authUrl}. Run ./startServer (or latchkey serve) first, or ${bothSettings}.`,
        )
      })
  }
  return {
    add: explained(operator.add),
    find: explained(operator.find),
    list: explained(operator.list),
    disable: explained(operator.disable),
    enable: explained(operator.enable),
    change: explained(operator.change),
    setAttributes: explained(operator.setAttributes),
    setEmail: explained(operator.setEmail),
    rename: explained(operator.rename),
    setPassword: explained(operator.setPassword),
    remove: explained(operator.remove),
    revokeSessions: explained(operator.revokeSessions),
  }
}

/** The URL, or the URL of an empty store in memory if the store has not been created yet. */
async function existingStore(url: string): Promise<string> {
  const { applied, pending } = (await listMigrations('USER_STORE_URL', url)) ?? { applied: [], pending: [] }
  if (pending.length === 0) return url
  if (applied.length > 0) {
    throw new Error('USER_STORE_URL: an older Latchkey created this database; start Auth first, which migrates it.')
  }
  console.error('USER_STORE_URL: there is no store yet, so there are no users.')
  return 'memory:'
}

/** Throws if import is impossible: users in memory are lost with the process. */
export function requireDurableUsers({ userStoreUrl }: AuthConfig): void {
  if (!isMemoryUrl(userStoreUrl)) return
  throw new Error(`USER_STORE_URL: users in memory are lost when Auth stops. To import users, ${bothSettings}.`)
}

/** Awaits a change. If the rest of it is left to Auth, only warns; `consequence` says what else has to wait for Auth. */
export async function finishChange(
  change: Promise<boolean>,
  { sweepIntervalMs }: AuthConfig,
  consequence = '',
): Promise<void> {
  try {
    if (!(await change)) throw deletedMeanwhile()
  } catch (error) {
    if (!(error instanceof LeftToAuth)) throw error
    const seconds = (sweepIntervalMs + underWayMs) / 1000
    console.error(
      `The tokens are in the memory of Auth, and ${error.message}. If Auth runs, they obey within ${seconds} seconds; otherwise they were lost when it stopped.${consequence}`,
    )
  }
}

export function deletedMeanwhile(): Error {
  return new Error('This user has just been deleted.')
}
