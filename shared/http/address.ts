// The client's address behind trusted proxies, and whether it is admitted. Hides the notations of addresses: results are
// dotted IPv4, or IPv6 as in RFC 5952. IPv4-mapped IPv6 addresses become dotted IPv4.
import { BlockList, isIP, SocketAddress } from 'node:net'

/** How many proxies are in front, or their addresses and networks. */
export type TrustedProxies = number | readonly string[]

/** Takes an address in the form that `clientAddress` returns; '' matches no rule. */
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

/**
 * Whether an address matches one of `rules`, which must satisfy `isAddressRule`. An IPv6 network contains no IPv4
 * address.
 */
export function addressTest(rules: readonly string[]): AddressTest {
  // Use two lists, because one list would also compare IPv4 addresses with IPv6 networks.
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

/** Denied wins. An empty list of allowed addresses admits every address that is not denied. */
export function addressGate(allowed: readonly string[], denied: readonly string[]): AddressTest {
  if (allowed.length === 0 && denied.length === 0) return () => true
  const [isAllowed, isDenied] = [addressTest(allowed), addressTest(denied)]
  return address => address !== '' && !isDenied(address) && (allowed.length === 0 || isAllowed(address))
}

/** The address of a socket; '' if it is already closed. */
export function peerAddress({ remoteAddress }: { readonly remoteAddress?: string | undefined }): string {
  return normalise(remoteAddress ?? '') ?? ''
}

/**
 * The right-most address that is not a trusted proxy. Each proxy appends its caller to X-Forwarded-For; entries further
 * left are only the caller's claim. `isTrusted` gets an address and the number of addresses to its right. If an entry
 * is not an address, the proxy that passed it on is the client.
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

/** Makes the test that `clientAddress` takes. */
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

/**
 * Null if `text` is not an address. Octal and other notations of `inet_aton` are refused, because programs interpret
 * them differently.
 */
function normalise(text: string): string | null {
  const family = isIP(text)
  if (family === 0) return null
  if (family === 4) return text
  // A zone, as in `fe80::1%eth0`, has a meaning only on the machine that saw the address.
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
  // A mapped network: a prefix shorter than the 96 bits of the mapping would cover all of IPv4 and a part of IPv6.
  return bits < 96 ? null : { address, bits: bits - 96 }
}
