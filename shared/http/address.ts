// Who is calling: the client's address behind the proxies that are trusted, and whether it may call. Hides the forms that an
// address comes in; what it gives is IPv4 dotted, also where it arrived mapped into IPv6, or IPv6 as RFC 5952 writes it.
import { BlockList, isIP, SocketAddress } from 'node:net'

/** How many proxies are in front, or their addresses and networks. */
export type TrustedProxies = number | readonly string[]

/** An address in the form that `clientAddress` gives; false for ''. */
export type AddressTest = (address: string) => boolean

export type ProxyTest = (address: string, distance: number) => boolean

const mappedPrefix = '::ffff:'

interface Rule {
  address: string
  bits: number
}

/** `10.0.0.0/8`, `2001:db8::/32`, or one address. */
export function isAddressRule(text: string): boolean {
  return parseRule(text) !== null
}

/** Whether an address is in one of `rules`, each of which `isAddressRule`. A network of IPv6 holds no IPv4 address. */
export function addressTest(rules: readonly string[]): AddressTest {
  // Two lists: one alone would compare an IPv4 address with IPv6 networks, too.
  const [ipv4, ipv6] = [new BlockList(), new BlockList()]
  for (const text of rules) {
    const { address, bits } = parseRule(text) as Rule
    if (isIP(address) === 4) ipv4.addSubnet(address, bits, 'ipv4')
    else ipv6.addSubnet(address, bits, 'ipv6')
  }
  return address => {
    if (address === '') return false
    return address.includes(':') ? ipv6.check(address, 'ipv6') : ipv4.check(address, 'ipv4')
  }
}

/** Denied wins; an empty list of allowed ones allows all that are not denied. */
export function addressGate(allowed: readonly string[], denied: readonly string[]): AddressTest {
  if (allowed.length === 0 && denied.length === 0) return () => true
  const [isAllowed, isDenied] = [addressTest(allowed), addressTest(denied)]
  return address => address !== '' && !isDenied(address) && (allowed.length === 0 || isAllowed(address))
}

/** Of a socket; '' where it has none any more. */
export function peerAddress({ remoteAddress }: { readonly remoteAddress?: string | undefined }): string {
  return normalise(remoteAddress ?? '') ?? ''
}

/**
 * The right-most address that no trusted proxy has: each proxy appends to X-Forwarded-For whom it was called by, and what is
 * left of that is the caller's word. `isTrusted` gets an address and how many are right of it. Where an entry is not an
 * address, the proxy that passed it on is the client.
 */
export function clientAddress(peer: string, forwardedFor: string | undefined, isTrusted: ProxyTest): string {
  let client = peer
  const entries = forwardedFor?.split(',') ?? []
  for (let distance = 0; isTrusted(client, distance); distance++) {
    const sender = parseEntry(entries.pop() ?? '')
    if (sender === null) break
    client = sender
  }
  return client
}

/** For `clientAddress`. */
export function proxyTest(trusted: TrustedProxies): ProxyTest {
  return typeof trusted === 'number' ? (_address, distance) => distance < trusted : addressTest(trusted)
}

/**
 * The key under which an address is counted. An IPv6 address counts as its /64, because a client with one address of a /64
 * has all of them (RFC 6177).
 */
export function networkOf(address: string): string {
  if (!address.includes(':')) return address
  const [head = '', tail] = address.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail ? tail.split(':').length + (tail.includes('.') ? 1 : 0) : 0
  const missing = tail === undefined ? 0 : 8 - left.length - right
  return `${[...left, ...Array<string>(missing).fill('0'), ...(tail ?? '').split(':')].slice(0, 4).join(':')}::/64`
}

/** Null where it is not an address. Octal and other numbers of `inet_aton` are none: readers differ on them. */
function normalise(text: string): string | null {
  const family = isIP(text)
  if (family === 0) return null
  if (family === 4) return text
  // A zone names an interface of the machine that saw it.
  const { address } = new SocketAddress({ address: text.replace(/%.*/, ''), family: 'ipv6' })
  return address.startsWith(mappedPrefix) && address.includes('.') ? address.slice(mappedPrefix.length) : address
}

/** Proxies write `address`, `address:port`, `[address]` or `[address]:port`. */
function parseEntry(text: string): string | null {
  const [, bracketed, dotted] = /^\s*(?:\[([\da-fA-F:.]+)\]|([\d.]+))(?::\d{1,5})?\s*$/.exec(text) ?? []
  if (bracketed !== undefined) return bracketed.includes(':') ? normalise(bracketed) : null
  return normalise(dotted ?? text.trim())
}

function parseRule(text: string): Rule | null {
  const [, written, prefix] = /^([\da-fA-F:.]+)(?:\/(0|[1-9]\d{0,2}))?$/.exec(text) ?? []
  const address = normalise(written ?? '')
  if (written === undefined || address === null) return null
  const width = isIP(written) === 4 ? 32 : 128
  const bits = prefix === undefined ? width : Number(prefix)
  if (bits > width) return null
  if (isIP(address) !== 4 || width === 32) return { address, bits }
  // Mapped: less than the 96 bits of the mapping would be all of IPv4 and something of IPv6.
  return bits < 96 ? null : { address, bits: bits - 96 }
}
