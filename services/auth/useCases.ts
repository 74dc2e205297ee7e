// Creates the use cases of Auth over the open stores: tokens, users, links, log-in, registration, and the limits.
import { memoryCounters } from '../../shared/counters.ts'
import { type InvalidTokens, limitInvalidTokens } from '../../shared/invalidTokens.ts'
import type { Log } from '../../shared/log/log.ts'
import type { Clock } from './clock.ts'
import type { AuthConfig } from './config.ts'
import { createCounters } from './defence/counters.ts'
import { createThrottles, type Throttles } from './defence/throttles.ts'
import { watchMailServer } from './observability/storeHealth.ts'
import type { Stores } from './stores.ts'
import type { Telemetry } from './telemetry.ts'
import { opaqueFormat, type TokenFormat } from './tokens/format.ts'
import type { JwtFormat } from './tokens/jwt.ts'
import { createKeys, type Keys } from './tokens/keys.ts'
import { createKeyUsage, type KeyUsage } from './tokens/keyUsage.ts'
import { createSweeper, type Sweeper } from './tokens/sweeper.ts'
import { createTokens, type Tokens, type TokensOptions } from './tokens/tokens.ts'
import { createUserAttributes, type UserAttributes } from './users/attributes.ts'
import { type Authorities, createAuthorities } from './users/authorities.ts'
import { createLinks, type Links } from './users/links.ts'
import { createLogIn, type LogIn } from './users/logIn.ts'
import type { Mailer } from './users/mail.ts'
import { createOwnAccount, type OwnAccount } from './users/ownAccount.ts'
import type { Passwords } from './users/passwords.ts'
import { createRegistration, type Registration } from './users/registration.ts'
import { createReuseNotices } from './users/reuseNotices.ts'
import { createUsers, type Users, type UsersOptions } from './users/users.ts'

export interface UseCases {
  tokens: Tokens
  /** The format of `tokens`. */
  format: TokenFormat
  /** Null with opaque tokens. */
  jwt: JwtFormat | null
  /** Opens a `Tokens` with another wire format, over the same store. */
  openTokens(format: TokenFormat): Tokens
  keys: Keys
  /** Null if uses of keys are not counted. */
  keyUsage: KeyUsage | null
  sweeper: Sweeper
  users: Users
  authorities: Authorities
  attributes: UserAttributes
  /** Completes the changes of users that were interrupted. */
  finishAll(): Promise<void>
  links: Links
  logIn: LogIn
  registration: Registration
  ownAccount: OwnAccount
  throttles: Throttles
  invalidTokens: InvalidTokens
  /** Waits for the mails that are being sent. */
  close(): Promise<void>
}

export interface UseCasesOptions {
  log: Log
  clock: Clock
  /** Monotonic milliseconds, for durations. */
  monotonicNow: () => number
  telemetry: Telemetry
  passwords: Passwords
  stores: Stores
}

/** Rejects with a message for the operator. */
export async function createUseCases(config: AuthConfig, options: UseCasesOptions): Promise<UseCases> {
  const { log, clock, monotonicNow, telemetry, passwords, stores } = options
  const { now } = clock
  const { metrics, emit } = telemetry
  const { limitsPerAccount, limitsPerAddress, publicUrl } = config

  const jwt = config.jwt && (await (await import('./tokens/jwt.ts')).openJwtFormat(config.jwt))
  const format = jwt ?? opaqueFormat
  const mailer = await openMailer(config, log, telemetry)
  const openCounter = createCounters({
    shared: stores.counters?.open ?? null,
    own: memoryCounters(monotonicNow),
    onOutage: cause => log.warn('limits_not_shared', { channel: 'security', cause }),
  })
  const notifyOfReuse = createReuseNotices({ users: stores.users, mailer, openCounter, now, emit })
  const emitOfTokens: TokensOptions['emit'] = event => {
    emit(event)
    if (event.type === 'renewed_secret_reused') void notifyOfReuse(event)
  }
  const openTokens = (format: TokenFormat) =>
    createTokensFrom(config, { store: stores.tokens, format, now, emit: emitOfTokens })
  const tokens = openTokens(format)
  const keys = createKeys({ tokens, perUser: config.tokenLimits.perUser, now })
  const keyUsage = stores.usage && createKeyUsage({ keys, usage: stores.usage, now })
  const intervalMs = config.sweepIntervalMs
  const sweeper = createSweeper({ store: stores.tokens, intervalMs, ...clock, monotonicNow, emit })

  const users = createUsersFrom(config, {
    store: stores.users,
    passwords,
    revokeTokens: tokens.revokeByUser,
    now,
    emit,
  })
  const authorities = createAuthorities({ users: stores.users, tokens: stores.tokens, emit })
  const throttles = createThrottles({
    perAccount: limitsPerAccount,
    perAddress: limitsPerAddress,
    openCounter,
    emit,
  })
  const invalidTokens = limitInvalidTokens({ limit: limitsPerAddress.invalidTokens, monotonicNow, emit })
  const links = createLinks({ users, tokens, throttles, mailer, publicUrl, emit })
  const registration = createRegistration({
    users,
    links,
    throttles,
    isOpen: config.registration === 'open',
    needsConfirmation: config.emailConfirmation === 'required',
  })
  const { showFigures } = await import('./observability/metrics.ts') // here, because commands need no metrics
  showFigures(metrics.registry, { queuedHashes: passwords.queued, hashes: passwords.hashes, counts: tokens.counts })

  async function finishAll(): Promise<void> {
    await users.finishAll()
    await authorities.mirrorAll()
  }
  await finishAll()

  return {
    tokens,
    format,
    jwt,
    openTokens,
    keys,
    keyUsage,
    sweeper,
    users,
    authorities,
    attributes: createUserAttributes({ store: stores.users, emit }),
    finishAll,
    links,
    logIn: createLogIn({ users, throttles }),
    registration,
    ownAccount: createOwnAccount({ users, links, throttles, canRename: config.isRegistrationSimple }),
    throttles,
    invalidTokens,
    close: async () => mailer?.close(),
  }
}

/** Creates a `Tokens` with the limits, lifetimes and rules of this configuration. */
export function createTokensFrom(
  { ttlMs, absoluteTtlMs, tokenLimits: limits, onReuse }: AuthConfig,
  options: Omit<TokensOptions, 'ttlMs' | 'absoluteTtlMs' | 'limits' | 'onReuse'>,
): Tokens {
  return createTokens({ ...options, ttlMs, absoluteTtlMs, limits, onReuse })
}

/** Creates a `Users` with the rules of this configuration. */
export function createUsersFrom(
  { passwordRules: rules, addressesOnly }: AuthConfig,
  options: Omit<UsersOptions, 'rules' | 'addressesOnly'>,
): Users {
  return createUsers({ ...options, rules, addressesOnly })
}

/** Null if mails cannot be sent. */
async function openMailer({ smtp, hasMail }: AuthConfig, log: Log, telemetry: Telemetry): Promise<Mailer | null> {
  if (smtp) {
    // Loaded only if it is used, because loading nodemailer takes a tenth of the time of a start.
    const { openSmtpMailer } = await import('./users/mail.ts')
    return openSmtpMailer({ ...smtp, emit: watchMailServer(telemetry.emit, telemetry) })
  }
  // Without a mail server, development logs its mails, and with them the links.
  const send: Mailer['send'] = ({ to, subject, text }) => log.info('mail', { to, subject, text })
  return hasMail ? { send, close: async () => {} } : null
}
