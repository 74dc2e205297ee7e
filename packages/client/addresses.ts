// The addresses of Auth: checks the configured URLs and resolves their names. Hides which addresses of a name belong to one
// Auth, when a name is resolved again, and what happens while it cannot be resolved.
import type { LookupAddress } from 'node:dns'
import { lookup as lookUp } from 'node:dns/promises'
import { isIP, type LookupFunction } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** Resolves a name to all of its addresses. */
export type Lookup = (hostname: string) => Promise<LookupAddress[]>

/** One Auth: a URL, or one of several addresses that the name in the URL has. */
export interface Target {
  /** The URL as configured. Host header and certificate check use its name, whatever address is called. */
  readonly origin: string
  /** How the log names it. */
  readonly address: string
  /** Given to `net.connect`: returns the addresses of this Auth, and resolves the name again, because they may have changed. */
  readonly lookup: LookupFunction
}

export interface Addresses {
  /** At least one for each URL. */
  targets(): readonly Target[]
}

export interface AddressesOptions {
  /** `dns.lookup` by default, which reads /etc/hosts too. */
  lookup?: Lookup | undefined
  monotonicNow: () => number
  /** How long a new connection waits for the name to be resolved again before it uses the last known address. */
  resolveTimeoutMs: number
  /** Called when `targets` has changed. */
  onChange: () => void
}

/** Some name servers return another part of a long list each time. Without this time, calls would chase the last answer. */
const keepMs = 1000
const expected = 'expected an http or https address without a path, or a list of them'

/** The origins in `url`, which may be a list, separated by commas or not. Throws a `TypeError` that says what is wrong. */
export function parseUrls(url: string | readonly string[]): string[] {
  const texts = [url].flat().flatMap(text => text.split(',').map(one => one.trim()))
  const origins = texts.map(text => {
    const parsed = URL.parse(text)
    if (parsed === null || !/^https?:$/.test(parsed.protocol) || `${parsed.origin}/` !== parsed.href) {
      throw new TypeError(`url: ${expected}; got ${JSON.stringify(text)}`)
    }
    return parsed.origin
  })
  const twice = origins.find((origin, i) => origins.indexOf(origin) !== i)
  if (twice !== undefined) throw new TypeError(`url: expected each address once; ${twice} is listed twice`)
  if (origins.length === 0) throw new TypeError(`url: ${expected}; got an empty list`)
  return origins
}

export function createAddresses(origins: readonly string[], options: AddressesOptions): Addresses {
  const places = origins.map(origin => createPlace(origin, options))
  return { targets: () => places.flatMap(place => place.targets()) }
}

interface Resolvable extends Target {
  /** Null until the name has been resolved for the first time. */
  addresses: LookupAddress[] | null
  /** When an answer had these addresses. */
  seenAt: number
}

/** What one URL leads to. `net.connect` calls no lookup for an IP address, so such a URL is one target for ever. */
function createPlace(origin: string, options: AddressesOptions) {
  const { lookup = lookUpAll, monotonicNow, resolveTimeoutMs, onChange } = options
  const host = new URL(origin).hostname.replace(/^\[|\]$/g, '')
  let resolving: Promise<void> | null = null
  let targets = [createTarget(null)]

  function createTarget(addresses: LookupAddress[] | null): Resolvable {
    const target: Resolvable = {
      origin,
      addresses,
      seenAt: 0,
      get address() {
        if (target.addresses === null || isIP(host) !== 0) return origin
        return `${origin} (${target.addresses.map(({ address }) => address).join(', ')})`
      },
      lookup(_hostname, { all }, callback) {
        addressesOf(target).then(
          found => {
            const [first] = found as [LookupAddress]
            if (all) callback(null, found)
            else callback(null, first.address, first.family)
          },
          (error: Error) => callback(error, []),
        )
      },
    }
    return target
  }

  async function addressesOf(target: Resolvable): Promise<LookupAddress[]> {
    resolving ??= resolve().finally(() => {
      resolving = null
    })
    const isKnown = target.addresses !== null
    await (isKnown ? Promise.race([resolving, sleep(resolveTimeoutMs, undefined, { ref: false })]) : resolving)
    // The address may belong to another service by now, which must not get the service key.
    if (!targets.includes(target)) throw new Error(`${target.address} is no longer an address of ${host}`)
    return target.addresses as LookupAddress[]
  }

  async function resolve(): Promise<void> {
    const first = targets[0] as Resolvable
    let found: LookupAddress[]
    try {
      found = await lookup(host)
      if (found.length === 0) throw new Error(`${host} has no address`)
    } catch (error) {
      if (first.addresses === null) throw error
      return // the last known addresses stay
    }
    const groups = groupByAuth(found)
    first.addresses ??= groups[0] as LookupAddress[]
    const now = monotonicNow()
    const before = targets
    const current = groups.map(group => before.find(target => isSame(target.addresses, group)) ?? createTarget(group))
    for (const target of current) target.seenAt = now
    targets = [...current, ...before.filter(target => !current.includes(target) && now - target.seenAt < keepMs)]
    if (targets.length !== before.length || targets.some(target => !before.includes(target))) onChange()
  }

  return { targets: () => targets }
}

const lookUpAll: Lookup = hostname => lookUp(hostname, { all: true })

/**
 * One group for each Auth. A name may have addresses of both IP versions: one of each forms a group, within which Node.js tries
 * both, since otherwise an Auth that listens on one of them would look like a healthy and a broken one.
 */
function groupByAuth(found: LookupAddress[]): LookupAddress[][] {
  const preferred = (found[0] as LookupAddress).family
  const sorted = found.toSorted((a, b) => (a.address < b.address ? -1 : 1))
  const ofFamily = (isPreferred: boolean) => sorted.filter(({ family }) => (family === preferred) === isPreferred)
  const [main, other] = [ofFamily(true), ofFamily(false)]
  return Array.from({ length: Math.max(main.length, other.length) }, (_, i) =>
    [main[i], other[i]].filter(address => address !== undefined),
  )
}

function isSame(one: LookupAddress[] | null, other: LookupAddress[]): boolean {
  const textOf = (addresses: LookupAddress[]) =>
    addresses
      .map(({ address }) => address)
      .toSorted()
      .join()
  return one !== null && textOf(one) === textOf(other)
}
