// The conformance vectors: their form, the TypeScript client, and clients with one fault each, which the vectors must find.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { expect } from 'chai'
import {
  type AuthClient,
  type AuthClientOptions,
  openAuthClient,
  type Validation,
} from '../../packages/client/authClient.ts'
import { beyondLimit, invalidToken, readBearerToken } from '../../packages/client/bearer.ts'
import type { Verdict } from '../../packages/client/contract.ts'
import { TokenError } from '../../packages/client/errors.ts'
import { insufficientScope, isMet, ruleOf } from '../../packages/client/rules.ts'
import { openClientProcess } from '../../tools/conformance/clientProcess.ts'
import {
  type ClientAnswer,
  type ClientRequest,
  type ClientUnderTest,
  type HeaderLines,
  openVectorRunner,
  type VectorRunner,
} from '../../tools/conformance/runVector.ts'
import { loadVectors, vectorsFolder } from '../../tools/conformance/vectors.ts'
import { serviceKey } from '../support/credentials.ts'
import { collectLog } from '../support/log.ts'
import { slackMs } from '../support/slack.ts'

const files = loadVectors()

type Auth = { url: string; key: string }
type Handle = (request: ClientRequest) => Promise<ClientAnswer>

const { log, lines } = collectLog('client')
const caller = { requestId: 'conformance' }

type IsMet = typeof isMet

/** The answer that a service which uses the client gives to a request. */
async function answerTo(
  { headers, needs }: ClientRequest,
  client: Pick<AuthClient, 'validate'>,
  isRuleMet: IsMet = isMet,
): Promise<ClientAnswer> {
  try {
    const token = readBearerToken({ rawHeaders: headers.flat() })
    const { verdict } = await client.validate(token, caller)
    if (!verdict.authenticated) throw verdict.limited === true ? beyondLimit(verdict) : invalidToken()
    for (const need of needs) {
      const rule = 'role' in need ? ruleOf('role', need.role) : ruleOf('scope', need.scope)
      if (!need.shadow && !isRuleMet(rule, verdict)) throw insufficientScope(rule)
    }
    return { status: 200, headers: {}, admission: { ...verdict } }
  } catch (error) {
    if (!(error instanceof TokenError)) throw error
    const { status, code, headers } = error
    const lowerCase = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value])
    return { status, headers: Object.fromEntries(lowerCase), problem: { error: code } }
  }
}

/** A client in this process. `make` wraps the real client, or replaces it. */
function inProcess(make: (client: AuthClient, auth: Auth) => Handle, options: Partial<AuthClientOptions> = {}) {
  let client: AuthClient | null = null
  let handle: Handle
  return {
    async open(auth: Auth) {
      await client?.close()
      client = openAuthClient({ ...auth, log, monotonicNow: () => performance.now(), ...options })
      handle = make(client, auth)
    },
    send: (requests: ClientRequest[]) => requests.map(handle),
    async close() {
      await client?.close()
      client = null
    },
  }
}

const honest: Parameters<typeof inProcess>[0] = client => request => answerTo(request, client)

let runner: VectorRunner

before(async () => {
  runner = await openVectorRunner({ key: serviceKey, slackMs })
})
after(() => runner.close())

describe('the conformance vectors', () => {
  const validate = new Ajv2020({ strict: true, allowUnionTypes: true, strictTuples: false }).compile(
    JSON.parse(readFileSync(join(vectorsFolder, 'schema.json'), 'utf8')),
  )

  it('have the form that schema.json describes', () => {
    expect([...files.keys()]).to.include.members([
      'answers',
      'batching',
      'connections',
      'deadlines',
      'requests',
      'rules',
      'verdicts',
    ])
    for (const file of files.keys()) {
      const isValid = validate(JSON.parse(readFileSync(join(vectorsFolder, `${file}.json`), 'utf8')))
      expect(isValid, `${file}: ${JSON.stringify(validate.errors)}`).to.equal(true)
    }
    expect(validate({ about: 'x', vectors: [{ title: 'x', given: [{ statuss: 500 }] }] })).to.equal(false)
  })

  it('have unique titles, and steps and expectations, their own or those of their file', () => {
    for (const [file, vectors] of files) {
      expect(new Set(vectors.map(({ title }) => title)).size, file).to.equal(vectors.length)
      for (const { title, when, then } of vectors) expect([when, then], title).to.not.include(undefined)
    }
  })

  it('are described by the README beside them, one row for each file', () => {
    const readme = readFileSync(join(vectorsFolder, 'README.md'), 'utf8')
    const rows = [...readme.matchAll(/^\| `(\w+)\.json` /gm)].map(([, name]) => name)
    expect(rows).to.have.members([...files.keys(), 'schema'])
  })
})

describe('the TypeScript client', () => {
  for (const [file, vectors] of files) {
    describe(file, () => {
      // Where time is not the subject, a busy machine must not make a request 503.
      const client = inProcess(honest, ['answers', 'deadlines'].includes(file) ? {} : { deadlineMs: 3000 })
      after(client.close)
      for (const vector of vectors) {
        it(vector.title, async () => {
          expect(await runner.run(vector, client)).to.deep.equal([])
        })
      }
    })
  }

  it('passes as a process that reads and writes lines', async () => {
    const asProcess = openClientProcess(process.execPath, ['tools/conformance/typescriptAdapter.ts'])
    for (const vector of [...(files.get('requests') ?? []), ...(files.get('rules') ?? [])]) {
      expect(await runner.run(vector, asProcess), vector.title).to.deep.equal([])
    }
    expect(await asProcess.close(), asProcess.errors()).to.equal(0)
  })
})

describe('the log of the TypeScript client', () => {
  it('contains neither a token nor the key', () => {
    const text = JSON.stringify(lines)
    expect(text).to.include('auth_unavailable')
    expect(text).not.to.include(serviceKey)
    expect(text).not.to.match(/good-(?:next|late|before)/)
  })
})

const refusal: Validation = { verdict: { authenticated: false }, serverTiming: '' }

/** The real client with another `validate`. */
const withValidate = (wrap: (client: AuthClient, auth: Auth) => (token: string) => Promise<Validation>) =>
  inProcess((client, auth) => {
    const validate = wrap(client, auth)
    return request => answerTo(request, { validate: token => validate(token) })
  })

/** A client that checks nothing: not the status, the type, the echo of the request id or the verdict. */
async function trust(token: string, { url, key }: Auth): Promise<Validation> {
  const answer = await fetch(`${url}/validateToken`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${key}`,
      'content-type': 'application/json',
      'x-request-id': `t${Math.random()}`,
    },
    body: JSON.stringify({ tokens: [token] }),
  })
  const { verdicts } = (await answer.json()) as { verdicts: Verdict[] }
  return { verdict: verdicts[0] as Verdict, serverTiming: '' }
}

/** Shares one promise among the requests that present the same token, while `isKept` is true. */
function remembering(kept: 'for ever' | 'in flight') {
  return withValidate(client => {
    const known = new Map<string, Promise<Validation>>()
    return token => {
      const asked = known.get(token) ?? client.validate(token, caller)
      known.set(token, asked)
      if (kept === 'in flight') asked.finally(() => known.delete(token)).catch(() => {})
      return asked
    }
  })
}

/** The real client behind other headers or another answer. */
const changing = (change: {
  headers?: (lines: HeaderLines) => HeaderLines
  answer?: (answer: ClientAnswer) => ClientAnswer
}) =>
  inProcess(client => async ({ headers, needs }) => {
    const answer = await answerTo({ headers: change.headers?.(headers) ?? headers, needs }, client)
    return change.answer?.(answer) ?? answer
  })

/** The real client with another idea of what a rule needs. */
const judging = (isRuleMet: IsMet) => inProcess(client => request => answerTo(request, client, isRuleMet))

/** The real client, which hands out other members of an admission. */
const withMembers = (change: (admission: Record<string, unknown>) => Record<string, unknown>) =>
  changing({
    answer: ({ admission, ...rest }) => ({
      ...rest,
      ...(admission && { admission: { ...admission, ...change(admission) } }),
    }),
  })

const trusting = withValidate((_client, auth) => token => trust(token, auth))

interface Fault {
  client: ClientUnderTest & { close(): Promise<unknown> }
  /** The beginnings of titles of vectors, behind the name of their file. */
  found: string[]
}

const faults: Record<string, Fault> = {
  'retries once': {
    client: withValidate(client => token => client.validate(token, caller).catch(() => client.validate(token, caller))),
    found: [
      'answers: 503 with Retry-After',
      'connections: if Auth resets it',
      'batching: all requests of a call that fails',
    ],
  },
  'follows redirects': {
    client: withValidate((client, auth) => token => client.validate(token, caller).catch(() => trust(token, auth))),
    found: ['answers: 307 to another address', 'answers: 308 to another address'],
  },
  'takes a fault of Auth for a refusal': {
    client: withValidate(client => token => client.validate(token, caller).catch(() => refusal)),
    found: [
      'answers: a good verdict under status 500',
      'answers: a good verdict under status 401',
      'deadlines: no answer',
    ],
  },
  'admits while Auth is away': {
    client: changing({ answer: answer => (answer.status === 503 ? { status: 200, headers: {} } : answer) }),
    found: ['connections: requests are 503 while Auth is down', 'answers: a reset without an answer'],
  },
  'caches verdicts': {
    client: remembering('for ever'),
    found: [
      'batching: an admission is not cached',
      'batching: a refusal is not cached',
      'batching: an outage is not cached',
    ],
  },
  'gives a request the verdict of a call that is already in flight': {
    client: remembering('in flight'),
    found: ['batching: a request that arrives during a call', 'batching: a token is sent once for each request'],
  },
  'sends each token in a call of its own': {
    client: inProcess(honest, { maxBatch: 1 }),
    found: ['batching: requests that arrive together share one call', 'batching: requests that arrive while two calls'],
  },
  'sends 256 tokens in a call': {
    client: inProcess(honest, { maxBatch: 256 }),
    found: ['batching: a call has at most 255 tokens'],
  },
  'has three calls in flight': {
    client: inProcess(honest, { maxCalls: 3 }),
    found: [
      'batching: a call has at most 255 tokens',
      'batching: at most two calls are in flight, even while they fail',
    ],
  },
  'waits two seconds': {
    client: inProcess(honest, { deadlineMs: 3000 }),
    found: ['deadlines: no answer'],
  },
  'waits half a second': {
    client: inProcess(honest, { deadlineMs: 500 }),
    found: ['deadlines: no answer'],
  },
  'checks nothing': {
    client: trusting,
    found: [
      'answers: the answer to another call',
      'answers: a text content type',
      'answers: a good verdict under status 403',
      'verdicts: a verdict without tokenId',
      'verdicts: more verdicts than tokens',
      'verdicts: authenticated that is "true"',
      'deadlines: an answer after 1.6 s',
    ],
  },
  'takes the first of two tokens': {
    client: changing({ headers: lines => lines.slice(0, 1) }),
    found: ['requests: both header forms at once', 'requests: Authorization twice with different tokens'],
  },
  'takes a token from a cookie': {
    client: changing({ headers: lines => lines.map(([, value]) => ['token', value.replace(/^token=(\w+).*/, '$1')]) }),
    found: ['requests: a token in a cookie'],
  },
  'names an error for a request without a token': {
    client: changing({
      answer: ({ headers, ...rest }) => ({ ...rest, headers: { ...headers, 'www-authenticate': 'Bearer error="x"' } }),
    }),
    found: ['requests: no token', 'verdicts: a refusal is 401'],
  },
  'does not say when to try again': {
    client: changing({ answer: answer => ({ ...answer, headers: {} }) }),
    found: ['answers: 500 with a page'],
  },
  'sends another key': {
    client: inProcess(honest, { key: 'another' }),
    found: ['batching: a request that arrives alone'],
  },
  'needs only one of several names': {
    client: judging((rule, admission) => rule.names.some(name => isMet({ ...rule, names: [name] }, admission))),
    found: ['rules: several roles are 403', 'rules: several scopes are 403'],
  },
  'looks for a name in the text of a scope': {
    client: judging((rule, admission) =>
      rule.kind === 'scope' && admission.scope !== null
        ? rule.names.every(name => admission.scope?.includes(name))
        : isMet(rule, admission),
    ),
    found: ['rules: the scope "orders:writes" is not', 'rules: the scope "orders:read,orders:write" is not'],
  },
  'takes the scope of a session for an empty one': {
    client: judging((rule, admission) => isMet(rule, { ...admission, scope: admission.scope ?? '' })),
    found: ['rules: a scope that is null', 'rules: an Auth of an earlier version knows no scope'],
  },
  'takes an empty scope for none': {
    client: judging((rule, admission) => isMet(rule, { ...admission, scope: admission.scope || null })),
    found: ['rules: an empty scope is 403', 'rules: an empty scope lacks each of several'],
  },
  'hands out an empty scope as null': {
    client: withMembers(({ scope }) => ({ scope: scope || null })),
    found: ['verdicts: a scope that is empty is not null'],
  },
  'drops the name of the key and the actor': {
    client: withMembers(() => ({ keyName: null, actor: null })),
    found: ['verdicts: an admission has the name of the key', 'verdicts: members of an actor'],
  },
  'hands out what an older Auth did not send as undefined': {
    client: withMembers(({ keyName, actor }) => ({ keyName: keyName ?? undefined, actor: actor ?? undefined })),
    found: ['verdicts: an Auth of an earlier version sends neither keyName nor actor'],
  },
  'takes names for roles and scopes alike': {
    client: judging((rule, { roles, scope }) =>
      rule.names.every(name => [...roles, ...(scope ?? '').split(' ')].includes(name)),
    ),
    found: ['rules: a role is no scope', 'rules: a scope is no role'],
  },
  'opens a connection for each call': {
    client: trusting,
    found: ['connections: 1000 requests use no more than four connections'],
  },
}

describe('a client', () => {
  for (const [fault, { client, found }] of Object.entries(faults)) {
    it(`fails the vectors if it ${fault}`, async () => {
      const control = inProcess(honest)
      for (const beginning of found) {
        const [file = '', title = ''] = beginning.split(/: (.*)/)
        const vector = files.get(file)?.find(one => one.title.startsWith(title))
        if (vector === undefined) throw new Error(`There is no vector ${beginning}.`)
        const problems = await runner.run(vector, client).catch(error => [String(error)])
        expect(problems, beginning).to.not.deep.equal([])
        expect(await runner.run(vector, control), beginning).to.deep.equal([])
      }
      await Promise.all([client.close(), control.close()])
    })
  }
})
