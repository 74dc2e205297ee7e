// What the URL of a Redis token store says, and how problems with the place are put to the operator.

export interface Address {
  host: string
  port: number
}

export interface Place {
  isCluster: boolean
  /** Set if `nodes` are Sentinels, which must be asked for the master. */
  sentinel: { masterName: string; username: string | undefined; password: string | undefined } | null
  nodes: Address[]
  tls: 'off' | 'verify' | 'no-verify'
  tlsFiles: { ca?: string | undefined; cert?: string | undefined; key?: string | undefined }
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

const shape = /^(redis|rediss|redis-cluster|redis-sentinel):\/\/(?:([^@/]*)@)?([^/?#]+)(?:\/([^/?#]*))?(?:\?([^#]*))?$/
const expected =
  'expected redis://user:password@host:port/database?prefix=…, rediss://…, redis-cluster://host:port,host:port, or redis-sentinel://host:port,host:port/name'
const options = [
  'prefix',
  'tls',
  'tls-ca-file',
  'tls-cert-file',
  'tls-key-file',
  'eviction',
  'wait-replicas',
  'wait-timeout-ms',
]
const sentinelOptions = ['database', 'sentinel-user', 'sentinel-password']

/** Throws an error with what is expected. */
export function parsePlace(url: string): Place {
  const match = shape.exec(url)
  if (match === null) throw new Error(expected)
  const [, scheme, login = '', hosts = '', path = '', query = ''] = match
  const [isCluster, isSentinel] = [scheme === 'redis-cluster', scheme === 'redis-sentinel']
  const nodes = hosts.split(',').map(host => parseHost(host, isSentinel ? 26379 : 6379))
  const isPathRight = isSentinel ? path !== '' : isCluster ? path === '' : /^\d*$/.test(path)
  if (!isPathRight || (nodes.length > 1 && !isCluster && !isSentinel)) throw new Error(expected)
  const found = parseQuery(query, isSentinel)
  const [username, password] = login.split(/:(.*)/s).map(decode)
  return {
    isCluster,
    sentinel: isSentinel
      ? {
          masterName: decode(path),
          username: found['sentinel-user'],
          password: found['sentinel-password'],
        }
      : null,
    nodes,
    ...parseTls(found, scheme === 'rediss'),
    username: username || undefined,
    password: password || undefined,
    database: Number(isSentinel ? (found['database'] ?? 0) : path),
    ...parseRules(found),
  }
}

function parseQuery(query: string, isSentinel: boolean): Record<string, string> {
  const found = Object.fromEntries(new URLSearchParams(query))
  const known = isSentinel ? [...options, ...sentinelOptions] : options
  for (const name of Object.keys(found)) {
    if (known.includes(name)) continue
    if (sentinelOptions.includes(name)) throw new Error(`${name}: expected only with redis-sentinel://`)
    throw new Error(`${name}: expected ${known.slice(0, -1).join(', ')} or ${known.at(-1)}`)
  }
  if (!/^\d{1,4}$/.test(found['database'] ?? '0')) throw new Error('database: expected a number')
  if (found['sentinel-user'] !== undefined && found['sentinel-password'] === undefined) {
    throw new Error('sentinel-user: expected only with sentinel-password')
  }
  return found
}

function parseTls(found: Record<string, string>, isAssumed: boolean): Pick<Place, 'tls' | 'tlsFiles'> {
  const { tls = isAssumed ? 'verify' : undefined } = found
  if (tls !== undefined && tls !== 'verify' && tls !== 'no-verify') throw new Error('tls: expected verify or no-verify')
  const tlsFiles = { ca: found['tls-ca-file'], cert: found['tls-cert-file'], key: found['tls-key-file'] }
  const [first] = Object.keys(found).filter(name => /^tls-/.test(name))
  if (first !== undefined && tls === undefined) {
    throw new Error(`${first}: expected only with TLS (rediss:// or tls=verify)`)
  }
  if ((tlsFiles.cert === undefined) !== (tlsFiles.key === undefined)) {
    throw new Error('tls-cert-file, tls-key-file: expected both or neither')
  }
  return { tls: tls ?? 'off', tlsFiles }
}

function parseRules(
  found: Record<string, string>,
): Pick<Place, 'prefix' | 'eviction' | 'waitReplicas' | 'waitTimeoutMs'> {
  const {
    prefix = 'latchkey:',
    eviction = 'refused',
    'wait-replicas': waitReplicas = '0',
    'wait-timeout-ms': waitTimeoutMs = '400',
  } = found
  if (eviction !== 'refused' && eviction !== 'allowed') throw new Error('eviction: expected refused or allowed')
  if (!/^\d$/.test(waitReplicas)) throw new Error('wait-replicas: expected a number from 0 to 9')
  if (!/^[1-9]\d{0,2}$/.test(waitTimeoutMs) || Number(waitTimeoutMs) > 800) {
    throw new Error('wait-timeout-ms: expected milliseconds from 1 to 800')
  }
  // The prefix precedes the braces that determine the slot, and is part of SCAN patterns.
  if (/[{}*?[\]\\]/.test(prefix)) throw new Error('prefix: expected none of { } * ? [ ] \\')
  return { prefix, eviction, waitReplicas: Number(waitReplicas), waitTimeoutMs: Number(waitTimeoutMs) }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new Error(expected) // more helpful than "URI malformed"
  }
}

function parseHost(text: string, defaultPort: number): Address {
  const { hostname, port } = URL.parse(`redis://${text}`) ?? { hostname: '', port: '' }
  if (hostname === '') throw new Error(expected)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || defaultPort) }
}

function nameOf({ isCluster, sentinel, nodes }: Place, master: Address | null): string {
  if (master !== null && sentinel) return `the Redis master ${sentinel.masterName} at ${master.host}:${master.port}`
  const kind = sentinel ? 'Sentinels' : isCluster ? 'cluster' : 'server'
  return `the Redis ${kind} at ${nodes.map(({ host, port }) => `${host}:${port}`).join(', ')}`
}

/**
 * The message for the operator. It omits the URL, which may contain a password. `master` is the server that Sentinels have
 * named; without it, the error is theirs.
 */
export function sentence(place: Place, error: Error, master: Address | null): string {
  const name = nameOf(place, master)
  if (error instanceof SetUpError) return `${name} ${error.message}`
  const { code = error.message } = error as NodeJS.ErrnoException
  if (/^(WRONGPASS|NOAUTH|ERR AUTH)/.test(error.message)) {
    if (place.sentinel && master === null) {
      return `${name} refuse the user or password of sentinel-user and sentinel-password in the query of the URL`
    }
    return `${name} refuses this user or its password`
  }
  if (/unknown command 'SENTINEL'/.test(error.message))
    return `${name} are no Sentinels: begin the URL with redis://, rediss:// or redis-cluster://`
  if (/cluster support disabled/.test(error.message))
    return `${name} is not a cluster: begin the URL with redis:// or rediss://`
  if (/^NOPERM/.test(error.message)) return `${name} does not allow this user what Latchkey needs (${error.message})`
  if (/CERTIFICATE_REQUIRED/.test(code))
    return `${name} demands a client certificate: add tls-cert-file=…&tls-key-file=… to the query of the URL`
  if (/CERT|SIGNATURE|UNKNOWN_CA/.test(code))
    return `${name} has a certificate that is not trusted (${code}); give its authority as tls-ca-file=…, or, to trust it all the same, add tls=no-verify to the query of the URL`
  return `${name} cannot be reached (${/timeout/i.test(error.message) ? 'no answer' : code})`
}
