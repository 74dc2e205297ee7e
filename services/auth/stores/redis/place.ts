// What the URL of a Redis token store says, and how problems with the place are put to the operator.

export interface Place {
  isCluster: boolean
  nodes: { host: string; port: number }[]
  tls: 'off' | 'verify' | 'no-verify'
  username: string | undefined
  password: string | undefined
  database: number
  prefix: string
  eviction: 'refused' | 'allowed'
  /** How many replicas must have a revocation before it is acknowledged. */
  waitReplicas: number
  waitTimeoutMs: number
}

/** What is wrong with a server, to follow its name in a sentence. */
export class SetUpError extends Error {}

const shape = /^(redis|rediss|redis-cluster):\/\/(?:([^@/]*)@)?([^/?#]+)(?:\/(\d*))?(?:\?([^#]*))?$/
const expected =
  'expected redis://user:password@host:port/database?prefix=…, rediss://…, or redis-cluster://host:port,host:port'

/** Throws an error with what is expected. */
export function parsePlace(url: string): Place {
  const match = shape.exec(url)
  if (match === null) throw new Error(expected)
  const [, scheme, login = '', hosts = '', database = '', query = ''] = match
  const {
    prefix = 'latchkey:',
    tls,
    eviction = 'refused',
    'wait-replicas': waitReplicas = '0',
    'wait-timeout-ms': waitTimeoutMs = '400',
    ...others
  } = Object.fromEntries(new URLSearchParams(query))
  const [unknown] = Object.keys(others)
  if (unknown !== undefined)
    throw new Error(`${unknown}: expected prefix, tls, eviction, wait-replicas or wait-timeout-ms`)
  if (tls !== undefined && tls !== 'verify' && tls !== 'no-verify') throw new Error('tls: expected verify or no-verify')
  if (eviction !== 'refused' && eviction !== 'allowed') throw new Error('eviction: expected refused or allowed')
  if (!/^\d$/.test(waitReplicas)) throw new Error('wait-replicas: expected a number from 0 to 9')
  if (!/^[1-9]\d{0,2}$/.test(waitTimeoutMs) || Number(waitTimeoutMs) > 800) {
    throw new Error('wait-timeout-ms: expected milliseconds from 1 to 800')
  }
  // The prefix precedes the braces that determine the slot, and is part of SCAN patterns.
  if (/[{}*?[\]\\]/.test(prefix)) throw new Error('prefix: expected none of { } * ? [ ] \\')
  const [username, password] = login.split(/:(.*)/s).map(decode)
  const isCluster = scheme === 'redis-cluster'
  const nodes = hosts.split(',').map(parseHost)
  if (isCluster ? database !== '' : nodes.length > 1) throw new Error(expected)
  return {
    isCluster,
    nodes,
    tls: tls ?? (scheme === 'rediss' ? 'verify' : 'off'),
    username: username || undefined,
    password: password || undefined,
    database: Number(database),
    prefix,
    eviction,
    waitReplicas: Number(waitReplicas),
    waitTimeoutMs: Number(waitTimeoutMs),
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new Error(expected) // more helpful than "URI malformed"
  }
}

function parseHost(text: string): { host: string; port: number } {
  const { hostname, port } = URL.parse(`redis://${text}`) ?? { hostname: '', port: '' }
  if (hostname === '') throw new Error(expected)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 6379) }
}

function nameOf({ isCluster, nodes }: Place): string {
  return `the Redis ${isCluster ? 'cluster' : 'server'} at ${nodes.map(({ host, port }) => `${host}:${port}`).join(', ')}`
}

/** The message for the operator. It omits the URL, which may contain a password. */
export function sentence(place: Place, error: Error): string {
  const name = nameOf(place)
  if (error instanceof SetUpError) return `${name} ${error.message}`
  const { code = error.message } = error as NodeJS.ErrnoException
  if (/^(WRONGPASS|NOAUTH|ERR AUTH)/.test(error.message)) return `${name} refuses this user or its password`
  if (/cluster support disabled/.test(error.message))
    return `${name} is not a cluster: begin the URL with redis:// or rediss://`
  if (/^NOPERM/.test(error.message)) return `${name} does not allow this user what Latchkey needs (${error.message})`
  if (/CERT|SIGNATURE/.test(code))
    return `${name} has a certificate that is not trusted (${code}); to trust it all the same, add tls=no-verify to the query of the URL`
  return `${name} cannot be reached (${/timeout/i.test(error.message) ? 'no answer' : code})`
}
