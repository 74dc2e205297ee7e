// The options of `latchkey()`: their defaults, and a clear error for each wrong value.
import { type AuthClientOptions, largestBatch } from './authClient.ts'
import { minSilenceMs } from './holds.ts'
import type { ShadowRefusal } from './shadowRules.ts'

interface ClientOptions extends Omit<AuthClientOptions, 'monotonicNow' | 'lookup' | 'traceCall'> {
  /** Called for each request that a rule with `shadow` would have refused. */
  onShadow?: (refusal: ShadowRefusal) => void
}

/** Every option has a default, except the key if the environment has no SERVICE_KEY. */
export type LatchkeyOptions = { [Name in keyof ClientOptions]?: ClientOptions[Name] | undefined }

type Environment = Record<string, string | undefined>

const numbers = ['deadlineMs', 'maxCalls', 'maxBatch', 'maxWaiting', 'maxSilenceMs'] as const
const hooks = ['onCall', 'onShadow'] as const
const known: readonly string[] = ['url', 'key', 'log', ...hooks, ...numbers]

/** Throws a `TypeError` that names the wrong option and what is expected. No message contains the key. */
export function readOptions(options: LatchkeyOptions, env: Environment): ClientOptions {
  const unknown = Object.keys(options).filter(name => !known.includes(name))
  if (unknown.length > 0) fail(`there is no option ${unknown.join(', ')}. The options are ${known.join(', ')}.`)
  const { url = env['AUTH_INTERNAL_URL'] || 'http://127.0.0.1:3101', log = console } = options
  const key = checkKey(options.key ?? env['SERVICE_KEY'])
  if (typeof log?.info !== 'function' || typeof log.warn !== 'function') {
    fail('log needs the methods info and warn, as console has.')
  }
  for (const name of hooks) {
    if (options[name] !== undefined && typeof options[name] !== 'function') fail(`${name} must be a function.`)
  }
  for (const name of numbers) checkNumber(name, options[name])
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  return { ...Object.fromEntries(given), url, key, log }
}

function checkKey(given: unknown): string {
  if (given === undefined || given === '') {
    fail('the service key is missing. Pass { key }, or set SERVICE_KEY to the key that Auth was started with.')
  }
  if (typeof given !== 'string' || !/^[\x21-\x7e]+$/.test(given)) {
    fail('key must be a string of visible ASCII characters: the SERVICE_KEY that Auth was started with.')
  }
  return given
}

function checkNumber(name: (typeof numbers)[number], value: unknown): void {
  if (value === undefined) return
  const min = name === 'maxSilenceMs' ? minSilenceMs : 1
  const max = name === 'maxBatch' ? largestBatch : Number.MAX_SAFE_INTEGER
  if (Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max) return
  fail(`${name} must be a whole number from ${min}${name === 'maxBatch' ? ` to ${max}` : ''}, not ${String(value)}.`)
}

function fail(problem: string): never {
  throw new TypeError(`latchkey: ${problem}`)
}
