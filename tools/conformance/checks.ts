// What a vector expects of a client, compared with what it did: its results, and its calls to the fake Auth.
import { isDeepStrictEqual } from 'node:util'
import { type FakeAuth, verdictFor } from '../../tests/support/fakeAuth.ts'
import type { Result } from './runVector.ts'
import type { Expected, Outcome, Then } from './vectors.ts'

const deadlineMs = 1000
const maxTokens = 255
const marginMs = 200 // tolerance for a late 503
const challenge = 'Bearer realm="latchkey"'

/** The status, the headers and the error code of each outcome; null if the header must be missing. */
const forms: Record<Exclude<Outcome, 'not admitted'>, { status: number; code?: string; headers: HeaderForm }> = {
  admitted: { status: 200, headers: { 'www-authenticate': null, 'retry-after': null } },
  refused: {
    status: 401,
    code: 'invalid_token',
    headers: { 'www-authenticate': `${challenge}, error="invalid_token"`, 'retry-after': null },
  },
  // RFC 6750 section 3.1: the scope that is needed may follow.
  'insufficient scope': {
    status: 403,
    code: 'insufficient_scope',
    headers: { 'www-authenticate': `${challenge}, error="insufficient_scope"`, 'retry-after': null },
  },
  // RFC 6750 section 3.1: no error code for a request that carried no credentials.
  'no token': { status: 401, code: 'invalid_token', headers: { 'www-authenticate': challenge, 'retry-after': null } },
  'bad request': { status: 400, code: 'invalid_request', headers: { 'www-authenticate': null } },
  // After the 1200 ms that every vector with this result says.
  limited: {
    status: 429,
    code: 'too_many_requests',
    headers: { 'www-authenticate': null, 'retry-after': '2', ratelimit: '"token";r=0;t=2' },
  },
  unavailable: { status: 503, code: 'unavailable', headers: { 'www-authenticate': null, 'retry-after': '1' } },
}
type HeaderForm = Record<string, string | null>

/** The problems of the requests of one entry of a vector. */
export function resultProblems(results: Result[], wanted: Then['results'][number] = 'admitted', slackMs = 0): string[] {
  const expected: Expected = typeof wanted === 'string' || Array.isArray(wanted) ? { is: wanted } : wanted
  return [...new Set(results.flatMap(result => problemsOf(result, expected, slackMs)))]
}

function problemsOf(result: Result, expected: Expected, slackMs: number): string[] {
  const outcomes = [expected.is].flat()
  const perOutcome = outcomes.map(outcome => formProblems(result, outcome, expected))
  const found = perOutcome.some(problems => problems.length === 0) ? [] : (perOutcome[0] ?? [])
  const { withinMs = deadlineMs + marginMs, notBeforeMs = 0 } = expected
  const took = `after ${Math.round(result.tookMs)} ms`
  if (result.tookMs > withinMs + slackMs) found.push(`The result came ${took}; expected within ${withinMs} ms.`)
  // Timers may be a few milliseconds early.
  if (result.tookMs < notBeforeMs - 5) found.push(`The result came ${took}; expected not before ${notBeforeMs} ms.`)
  return found
}

function formProblems(
  { answer, headers }: Result,
  outcome: Outcome,
  { admission: members = {}, scope }: Expected,
): string[] {
  if (outcome === 'not admitted') return answer.status === 200 ? ['The request was admitted.'] : []
  const form = forms[outcome]
  if (answer.status !== form.status) return [`The status is ${answer.status}; expected ${form.status} (${outcome}).`]
  const problems = Object.entries(form.headers).flatMap(([name, plain]) => {
    const value = scope !== undefined && name === 'www-authenticate' ? `${plain}, scope="${scope}"` : plain
    const given = answer.headers[name] ?? null
    return given === value ? [] : [`The header ${name} is ${given}; expected ${value} (${outcome}).`]
  })
  if (outcome === 'admitted' && answer.admission !== undefined) {
    const wanted = Object.entries({ ...verdictFor(tokenOf(headers)), ...members })
    for (const [name, value] of wanted.filter(([name, value]) => !has(answer.admission?.[name], value))) {
      problems.push(
        `The admission has ${name} ${JSON.stringify(answer.admission[name])}; expected ${JSON.stringify(value)}.`,
      )
    }
  }
  if (answer.problem !== undefined && answer.problem['error'] !== form.code) {
    problems.push(`The problem has error ${answer.problem['error']}; expected ${form.code}.`)
  }
  return problems
}

/** Compares only the wanted members of an object: a client may keep or drop those that it does not know. */
function has(given: unknown, wanted: unknown): boolean {
  if (!isObject(given) || !isObject(wanted)) return isDeepStrictEqual(given, wanted)
  return Object.entries(wanted).every(([name, value]) => has(given[name], value))
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export interface CallsSeen {
  key: string
  results: Result[]
  expected: Then
  /** The number of connections that the client has opened. */
  connections: number
}

/** The problems of the calls that reached the fake Auth. */
export function callProblems(auth: FakeAuth, { key, results, expected, connections }: CallsSeen): string[] {
  const { calls: wanted, maxInFlight, maxConnections, maxAnswerBytes = Infinity } = expected
  const problems = auth.calls.flatMap(call => requestProblems(call, key, auth.host))
  const ids = auth.calls.map(({ requestId }) => requestId)
  if (new Set(ids).size < ids.length) problems.push('Two calls have the same X-Request-Id.')
  const seen = auth.calls.map(({ tokens }) => tokens)
  if (Array.isArray(wanted)) {
    if (!isDeepStrictEqual(seen, wanted)) problems.push(`Auth got the calls ${show(seen)}; expected ${show(wanted)}.`)
  } else {
    const sent = results.map(({ headers }) => tokenOf(headers)).sort()
    if (!isDeepStrictEqual(seen.flat().sort(), sent)) problems.push('Auth did not get every token exactly once.')
    const sizes = seen.map(tokens => tokens.length).sort((a, b) => b - a)
    if ('sizes' in wanted && !isDeepStrictEqual(sizes, wanted.sizes)) {
      problems.push(`The calls have ${sizes} tokens; expected ${wanted.sizes}.`)
    }
    if ('atMost' in wanted && sizes.length > wanted.atMost) {
      problems.push(`Auth got ${sizes.length} calls; expected at most ${wanted.atMost}.`)
    }
  }
  if (maxInFlight !== undefined && auth.maxInFlight() !== maxInFlight) {
    problems.push(`${auth.maxInFlight()} calls were in flight at one time; expected ${maxInFlight}.`)
  }
  const written = Math.max(0, ...auth.calls.map(({ socket }) => socket.bytesWritten))
  if (written > maxAnswerBytes) {
    problems.push(`Auth wrote ${written} bytes on one connection; expected at most ${maxAnswerBytes}.`)
  }
  if (maxConnections !== undefined && connections > maxConnections) {
    problems.push(`The client opened ${connections} connections; expected at most ${maxConnections}.`)
  }
  return problems
}

function requestProblems(
  { requestLine, headers, requestId, body }: FakeAuth['calls'][number],
  key: string,
  host: string,
) {
  const problems: string[] = []
  const expect = (what: string, given: unknown, wanted: string) => {
    if (given !== wanted) problems.push(`${what} is ${given}; expected ${wanted}.`)
  }
  expect('The request line', requestLine, 'POST /validateToken HTTP/1.1')
  expect('Host', headers['host'], host)
  // The key itself is not shown, because what this prints may be kept.
  if (headers['authorization'] !== `Bearer ${key}`) problems.push('Authorization is not Bearer and the service key.')
  if (!/^application\/json\b/.test(headers['content-type'] ?? ''))
    problems.push('Content-Type is not application/json.')
  if (!/^[\w.-]{1,64}$/.test(requestId)) problems.push(`X-Request-Id is ${JSON.stringify(requestId)}.`)
  const { tokens, ...others } = readObject(body)
  if (!Array.isArray(tokens)) problems.push(`The body has no list of tokens: ${body.slice(0, 100)}`)
  else if (tokens.length > maxTokens)
    problems.push(`A call has ${tokens.length} tokens; expected at most ${maxTokens}.`)
  for (const name of ['token', 'purpose', 'touch'])
    if (name in others) problems.push(`The body has the member ${name}.`)
  return problems
}

function readObject(json: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(json))
  } catch {
    return {}
  }
}

/** The token of a request that has one. */
function tokenOf(headers: Result['headers']): string {
  const find = (name: RegExp, value: RegExp) => headers.find(line => name.test(line[0]) && value.test(line[1]))?.[1]
  return find(/^authorization$/i, /^bearer /i)?.slice(7) ?? find(/^token$/i, /./) ?? ''
}

function show(calls: string[][]): string {
  return JSON.stringify(calls).slice(0, 300)
}
