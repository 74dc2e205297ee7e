// npm run fuzz: sends requests that no client would send, made from the OpenAPI documents and from malformed bytes, and
// behaves as no client would. A seed repeats a run. See --help.
import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import { readArguments, readCount, refuseUsage } from '../commands/arguments.ts'
import { createRandom } from '../tests/support/random.ts'

export interface FuzzTarget {
  url: string
  /** The operations of the OpenAPI document that this listener serves. */
  operations: FuzzOperation[]
}

export interface FuzzOperation {
  method: string
  /** `/users/{id}` */
  path: string
  /** Names of its query parameters. */
  query: string[]
  /** Schemas of its body by media type; empty if it has no body. */
  bodies: Record<string, Schema>
}

/** The part of JSON Schema that is read here. */
export interface Schema {
  type?: string | string[]
  enum?: unknown[]
  anyOf?: Schema[]
  properties?: Record<string, Schema>
  items?: Schema
}

/** A logged-in user: without valid values, no request would get beyond the first check. */
export interface FuzzActor {
  username: string
  password: string
  /** The first token is the user's session; the others are API keys. */
  tokens: string[]
}

export interface FuzzOptions {
  requests: number
  seed: number
  /** Number of simultaneous requests. */
  atOnce: number
  /** Logs in. Called from time to time, because the fuzzed requests end sessions and accounts. */
  logIn: () => Promise<FuzzActor>
  /**
   * `polite` sends one request per connection and reads the answer; a missing answer is a fault. `rude` also pipelines,
   * closes half or all of its connection, and does not read; afterwards every listener must still answer.
   */
  client?: 'polite' | 'rude'
  /** Stops after this many milliseconds, even if requests are left. */
  timeoutMs?: number
}

/** The number of answers by status, and the requests that caused a fault. */
export interface FuzzReport {
  statuses: Record<string, number>
  faults: string[]
}

const odd = [
  null,
  true,
  false,
  0,
  -1,
  1e308,
  -0,
  1.5,
  '',
  ' ',
  'a',
  '__proto__',
  'constructor',
  'toString',
  'a\0b',
  '\ud800',
  '☃'.repeat(90),
  'x'.repeat(600),
  'x'.repeat(20_000),
  "'; drop table latchkey_users; --",
  '<script>alert(1)</script>',
  '%00',
  '../../etc/passwd',
  '\r\nSet-Cookie: x',
  '<%= 7*7 %>',
  '{{7*7}}',
  [],
  [[]],
  {},
  { $ne: 1 },
  { __proto__: 1 },
  { constructor: { prototype: { x: 1 } } },
] as const
const methods = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND']
const contentTypes = [
  'application/json',
  'application/x-www-form-urlencoded',
  'text/plain',
  'multipart/form-data; boundary=x',
  'application/json; charset=utf-7',
  '',
]
const brokenBodies = [
  '',
  '{',
  'null',
  '[]',
  '"x"',
  '{"a":',
  '\ufeff{}',
  '{"__proto__":{"x":1}}',
  '[['.repeat(5000),
  'a=1&a=2',
  'token=%ff',
  '{"username":"a","username":"b"}',
]
const requestsPerLogIn = { polite: 200, rude: 2000 } // a rude client keeps the hash threads busy

export async function fuzz(
  targets: FuzzTarget[],
  { requests, seed, atOnce, logIn, client = 'polite', timeoutMs = Infinity }: FuzzOptions,
): Promise<FuzzReport> {
  const { next: random, pick: one } = createRandom(seed)
  const report: FuzzReport = { statuses: {}, faults: [] }
  let actor = await logIn()

  const oddText = (maxLength: number) => encodeURIComponent(String(one(odd)).toWellFormed()).slice(0, maxLength)

  function target(path: string, query: string[]): string {
    const filled = path.replace(/\{\w+\}/g, () => oddText(500) || 'x')
    if (random() < 0.8) return filled
    return `${filled}?${one([...query, 'x', '__proto__'])}=${one([oddText(300), '1', '10'])}`
  }

  function plausible(name: string, { type, enum: values, anyOf, items, properties }: Schema): unknown {
    if (anyOf) return plausible(name, one(anyOf))
    if (values) return one(values)
    if (properties) return object(properties)
    const kind = Array.isArray(type) ? one(type) : type
    if (kind === 'array') return Array.from({ length: Math.floor(random() * 4) }, () => plausible(name, items ?? {}))
    if (kind === 'boolean') return random() < 0.5
    if (kind === 'integer' || kind === 'number') return one([1, 30, 3600])
    if (kind === 'null') return null
    if (/password/i.test(name)) return one([actor.password, 'another phrase of some length'])
    if (name === 'username' || name === 'email') return actor.username
    return one(actor.tokens)
  }

  function object(properties: Record<string, Schema>): Record<string, unknown> {
    const members = Object.entries(properties).flatMap(([name, schema]) => {
      const kind = random()
      return kind < 0.1 ? [] : [[name, kind < 0.35 ? one(odd) : plausible(name, schema)] as const]
    })
    if (random() < 0.1) members.push([one(['isAdmin', 'constructor', 'x']), one(odd)])
    return Object.fromEntries(members)
  }

  /** The media type and the text of the body; the text is '' if nothing is sent. */
  function content({ bodies }: FuzzOperation): [string, string] {
    if (random() < 0.1) return [one(contentTypes), one(brokenBodies)]
    const types = Object.keys(bodies)
    if (types.length === 0) return ['', '']
    const type = one(types)
    const body = object(bodies[type]?.properties ?? {})
    const isForm = type.includes('urlencoded')
    const texts = Object.entries(body).map(([name, value]): [string, string] => [name, String(value).toWellFormed()])
    const text = isForm ? new URLSearchParams(texts).toString() : JSON.stringify(body)
    return [random() < 0.95 ? type : one(contentTypes), text]
  }

  function request({ operations }: FuzzTarget): { sent: string; isWhole: boolean } {
    const known = one(operations)
    const isKnown = random() < 0.9
    const method = isKnown ? known.method : one(methods)
    const path =
      isKnown || random() < 0.5 ? target(known.path, known.query) : one(['/', '/nowhere', '//login', '/login/'])
    const lines = [`${method} ${path.replace(/[^\x21-\x7e]/g, '%20')} HTTP/1.1`, 'Host: fuzz', 'Connection: close']
    const bearer = random()
    if (bearer < 0.7) lines.push(`Authorization: Bearer ${one(actor.tokens)}`)
    else if (bearer < 0.8) lines.push(`Authorization: Bearer ${one(['x', 'lk_'.padEnd(66, '0'), 'a b', ''])}`)
    if (random() < 0.05) lines.push(`token: ${one(actor.tokens)}`)
    if (random() < 0.1) lines.push(`X-Request-Id: ${one(['ok', 'not ok', 'x'.repeat(100)])}`)
    const [type, text] = content(known)
    if (text !== '') lines.push(`Content-Type: ${type}`, `Content-Length: ${Buffer.byteLength(text)}`)
    const whole = `${lines.join('\r\n')}\r\n\r\n${text}`
    // Damage some requests in a byte or a larger piece.
    if (random() < 0.9) return { sent: whole, isWhole: true }
    const at = Math.floor(random() * whole.length)
    const sent = one([
      whole.slice(0, at),
      whole.slice(0, at) + String.fromCharCode(Math.floor(random() * 256)) + whole.slice(at + 1),
      whole + whole.slice(at),
    ])
    return { sent, isWhole: false }
  }

  async function send(): Promise<void> {
    const target = one(targets)
    const { sent, isWhole } = request(target)
    const answer = await exchange(target.url, sent, isWhole)
    const status = /^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 'none'
    report.statuses[status] = (report.statuses[status] ?? 0) + 1
    // A missing answer to an undamaged request is also a fault: the handler hangs, or the connection was reset.
    const isFault = status === 'none' ? isWhole : /^5/.test(status) && status !== '503'
    if (isFault || /node_modules|at .*\.ts:\d|SQLITE|ECONN/.test(answer))
      report.faults.push(`${sent.slice(0, 400)}\n-> ${answer.slice(0, 400)}`)
  }

  async function sendRudely(): Promise<void> {
    const target = one(targets)
    const behaviour = one(rudeBehaviours)
    const count = behaviour === 'sends one' ? 1 : 1 + Math.floor(random() * 10)
    const wholes = Array.from({ length: count }, () => request(target).sent.replace('Connection: close\r\n', ''))
    const sent = `${wholes.join('')}${one(['', '', '?\r\n\r\n', 'GET / HT'])}`
    const answer = await exchangeRudely(target.url, sent, behaviour)
    for (const [, status = ''] of answer.matchAll(/^HTTP\/1\.1 (\d{3}) /gm)) {
      report.statuses[status] = (report.statuses[status] ?? 0) + 1
      if (/^5/.test(status) && status !== '503') report.faults.push(`${sent.slice(0, 400)}\n-> ${answer.slice(0, 400)}`)
    }
  }

  /** If the log-in fails, there is nothing more to try. */
  async function becomeAnother(): Promise<void> {
    try {
      actor = await logIn()
    } catch (error) {
      const { message, cause } = error as Error
      report.faults.push(`no log-in: ${message} ${cause ?? ''}`)
      left = 0
    }
  }

  async function requireAnswers(): Promise<void> {
    for (const { url } of targets) {
      const health = 'GET /nowhere HTTP/1.1\r\nHost: fuzz\r\nConnection: close\r\n\r\n'
      const answer = await exchange(url, health, true)
      if (!/^HTTP\/1\.1 404 /.test(answer)) report.faults.push(`${url} no longer answers: ${answer.slice(0, 400)}`)
    }
  }

  const stopAt = performance.now() + timeoutMs
  let left = requests
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (left-- > 0 && performance.now() < stopAt) {
        if (left % requestsPerLogIn[client] === 0) await becomeAnother()
        if (client === 'polite') await send()
        else await sendRudely()
      }
    }),
  )
  if (client === 'rude') await requireAnswers()
  return report
}

const rudeBehaviours = ['sends one', 'pipelines', 'closes half', 'never reads', 'goes away', 'resets'] as const
const rudeMs = 500 // a rude client disconnects after this time

/** Resolves to everything that was received until the server closed or the client disconnected. */
function exchangeRudely(url: string, sent: string, behaviour: (typeof rudeBehaviours)[number]): Promise<string> {
  const { hostname, port } = new URL(url)
  return new Promise(resolve => {
    let answer = ''
    const socket = connect({ port: Number(port), host: hostname, allowHalfOpen: true }, () => {
      socket.write(sent)
      if (behaviour === 'closes half') socket.end()
      if (behaviour === 'goes away') socket.destroySoon()
      if (behaviour === 'resets') setImmediate(() => socket.resetAndDestroy())
    })
    if (behaviour !== 'never reads') {
      socket.on('data', chunk => {
        answer += chunk
      })
    }
    const leave = setTimeout(() => socket.destroy(), rudeMs)
    socket.on('error', () => {})
    socket.on('close', () => {
      clearTimeout(leave)
      resolve(answer)
    })
  })
}

const silentMs = 1000 // after this silence the answer is complete, or a damaged request gets no answer
const hungMs = 10_000 // longer than any answer takes on a busy machine

/** Resolves to everything that was received until the connection ended or became silent. */
function exchange(url: string, sent: string, isWhole: boolean): Promise<string> {
  const { hostname, port } = new URL(url)
  return new Promise(resolve => {
    let answer = ''
    // End the connection after a damaged request, so that the server does not wait for the rest. Do not end it after a
    // complete request: the server would assume that the client has gone.
    const socket = connect(Number(port), hostname, () => (isWhole ? socket.write(sent) : socket.end(sent)))
    socket.setTimeout(isWhole ? hungMs : silentMs, () => socket.destroy())
    socket.on('data', chunk => {
      socket.setTimeout(silentMs)
      answer += chunk
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(answer))
  })
}

const usage = `Usage: npm run fuzz -- [--requests 100000] [--seed 1] [--token-format opaque|jwt]
       npm run fuzz -- --layout "separate ports"|"single address" [--requests 20000] [--seed 1]

Starts both services, sends them requests that no client would send, and lists what went wrong; the exit code is 1 if
anything did. The same seed sends the same requests again.

  --requests       number of requests
  --seed           any number
  --token-format   opaque or jwt
  --layout         start the services with ./startServer in this layout; clients also pipeline, half-close connections, and
                   leave responses unread. No process may exit, restart, or stop responding
  --help           show this`

/** Ends the process with a message if the arguments are invalid. */
function readOptions() {
  const values = readArguments(usage, {
    requests: { type: 'string', default: '100000' },
    seed: { type: 'string', default: '1' },
    'token-format': { type: 'string', default: 'opaque' },
    layout: { type: 'string' },
  })
  const { layout, 'token-format': tokenFormat } = values
  if (!['opaque', 'jwt'].includes(tokenFormat)) refuseUsage(usage, '--token-format: expected opaque or jwt.')
  if (layout !== undefined && layout !== 'separate ports' && layout !== 'single address') {
    return refuseUsage(usage, '--layout: expected "separate ports" or "single address".')
  }
  const [requests, seed] = [readCount(usage, 'requests', values.requests), readCount(usage, 'seed', values.seed)]
  return { requests, seed, tokenFormat, layout } as const
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { requests, seed, tokenFormat, layout } = readOptions()
  const { openRealTargets, openTargets } = await import('../tests/support/fuzzTargets.ts')
  const open = layout === undefined ? openTargets({ tokenFormat }) : openRealTargets(layout)
  const { targets, logIn, problems, close } = await open
  console.log(`${requests} requests, seed ${seed}`)
  const client = layout === undefined ? 'polite' : 'rude'
  const { statuses, faults } = await fuzz(targets, { requests, seed, atOnce: 16, logIn, client })
  console.table(statuses)
  const all = [...faults, ...problems()] // read before the services close, because closing is logged too
  await close()
  for (const fault of all.slice(0, 20)) console.log(`\n${fault}`)
  console.log(`${all.length} faults`)
  process.exit(all.length === 0 ? 0 : 1)
}
