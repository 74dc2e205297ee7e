// npm run smoke: passes on the real pair, and explains each fault of a deployment. A small proxy in front of the pair plants
// the faults.
import { execFile, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import http, { type IncomingMessage, type OutgoingHttpHeaders } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { runChecks, type Target } from '../../commands/smoke/checks.ts'
import { bareEnvironment } from '../support/childEnvironment.ts'
import { demo, serviceKey } from '../support/credentials.ts'
import { validate } from '../support/factories.ts'
import { closeServers, startAuth, startBusiness } from '../support/servers.ts'
import { cleanUp, runStartServer } from '../support/startServer.ts'

interface Exchange {
  method: string
  /** Includes the query. */
  url: string
  /** Alternating header names and values. */
  sent: string[]
  token: string | null
  content: string
  /** This member and the next two are the response. */
  status: number
  headers: OutgoingHttpHeaders
  body: string
}

/** Changes to `exchange` before `pass` reach the pair; changes after it reach the client. */
type Fault = (exchange: Exchange, pass: () => Promise<void>, internal: string) => Promise<void>

const afterwards = (change: (exchange: Exchange) => void): Fault => {
  return async (exchange, pass) => {
    await pass()
    change(exchange)
  }
}

const without = (...names: string[]): Fault =>
  afterwards(({ headers }) => {
    for (const name of names) delete headers[name]
  })

/** Title, behaviour of the proxy, and expressions. Each expression must match a failure, and each failure must match an expression. */
const faults: [string, Fault, RegExp[]][] = [
  ['Cache-Control is missing', without('cache-control'), [/Cache-Control \(no-store\) is missing on .*\/login/]],
  [
    'X-Request-Id is missing',
    without('x-request-id'),
    [/the responses have no X-Request-Id, so/, /X-Request-Id is missing on GET/, /problem document/],
  ],
  [
    'WWW-Authenticate is missing',
    without('www-authenticate'),
    [/WWW-Authenticate is missing on the 401 of GET \/data/, /WWW-Authenticate: Bearer is missing on GET \/data/],
  ],
  ['405 comes without Allow', without('allow'), [/405 without Allow on POST \/data/]],
  ['X-Content-Type-Options is missing', without('x-content-type-options'), [/nosniff is missing/]],
  [
    'the proxy adds a Server header with its version',
    afterwards(({ headers }) => {
      headers['server'] = 'nginx/1.25.3'
    }),
    [/attackers can look up the version in Server/],
  ],
  [
    'the proxy sets a cookie',
    afterwards(({ headers }) => {
      headers['set-cookie'] = 'route=a; Path=/'
    }),
    [/adds Set-Cookie to/],
  ],
  [
    'the proxy has its own error pages',
    afterwards(exchange => {
      if (exchange.status !== 404) return
      exchange.headers['content-type'] = 'text/html'
      exchange.body = '<h1>Not Found</h1>'
    }),
    [/every refusal is a problem document.* GET \/nowhere/],
  ],
  [
    'verdicts are cached',
    cacheVerdicts(),
    [
      /^a session that logged out.*a revoked token was still admitted by 4 of 4/,
      /\/revoke; /,
      /\/renew; /,
      /DELETE \/sessions\/:id; /,
      /two tokens are 400/,
      /does not extend/,
    ],
  ],
  [
    'data is cached for all users',
    cacheDataForAll(),
    [
      / without a token.* answered 200, expected 401/,
      /an unknown token.* answered 200/,
      /a malformed token/,
      /paths are exact/,
      /two tokens/,
      /wrong place/,
      /still admitted/,
      /until it is ended|revoked/,
    ],
  ],
  [
    'the internal listener is reachable',
    async (exchange, pass, internal) => {
      await pass()
      if (exchange.status !== 404) return
      Object.assign(exchange, await forward(internal, exchange))
    },
    [/the internal listener is reachable from here: POST \/validateToken answered \d+, .*GET \/metrics answered 200/],
  ],
  [
    'a token in the URL is accepted',
    async (exchange, pass) => {
      const [, token] = /[?&]token=([^&]+)/.exec(exchange.url) ?? []
      if (token) exchange.sent.push('token', token)
      await pass()
    },
    [/a token in the URL must be ignored/],
  ],
  [
    'paths are compared in lower case',
    async (exchange, pass) => {
      exchange.url = exchange.url.toLowerCase()
      await pass()
    },
    [/paths are exact/, /session/],
  ],
  [
    'sessions do not slide',
    async (exchange, pass, internal) => {
      if (!exchange.url.startsWith('/data') || exchange.token === null) return pass()
      const { body } = await validate(internal, { token: exchange.token, touch: false })
      if (body['authenticated'] !== true || exchange.sent.includes('token')) return pass()
      Object.assign(exchange, { status: 200, body: '{"data":"hello"}' })
      Object.assign(exchange.headers, {
        'x-request-id': 'planted',
        'cache-control': 'no-store',
        'x-content-type-options': 'nosniff',
      })
    },
    [/does not extend the session, so active users are logged out/],
  ],
  [
    'the message reveals unknown users',
    afterwards(exchange => {
      if (exchange.url !== '/login' || exchange.status !== 401 || !exchange.content.includes('nobody')) return
      exchange.body = exchange.body.replace('The username or the password', 'The username')
    }),
    [/differ in more than the X-Request-Id, which reveals who has an account/],
  ],
  [
    'the response to an unknown user is faster',
    async (exchange, pass) => {
      await pass()
      if (exchange.url === '/login' && exchange.status === 401 && !exchange.content.includes('nobody')) await sleep(400)
    },
    [/ms for an unknown user and .* which reveals who has an account/],
  ],
  [
    'pages of every origin can read responses',
    afterwards(({ headers }) => {
      headers['access-control-allow-origin'] = '*'
    }),
    [/lets any page act for its visitors/],
  ],
  [
    'text is accepted as JSON',
    async (exchange, pass) => {
      exchange.sent = exchange.sent.map(part => (part === 'text/plain' ? 'application/json' : part))
      await pass()
    },
    [/answered 401, expected 415: \/login must refuse text/],
  ],
  [
    'the API description contains a key',
    afterwards(exchange => {
      if (exchange.url === '/openapi.json')
        exchange.body = exchange.body.replace('"info"', `"x":"${serviceKey}","info"`)
    }),
    [/\/openapi\.json contains the service key: replace it now/],
  ],
]

describe('npm run smoke', () => {
  let pair: Awaited<ReturnType<typeof startPair>>
  before(async () => {
    pair = await startPair()
  })
  after(async () => {
    for (const server of proxies) server.close()
    await closeServers()
    await cleanUp()
  })

  it('passes on the real pair, prints no secret, and exits with 0', async () => {
    const { business, auth, authInternal } = await runStartServer().ready
    const env = { SMOKE_USERNAME: demo.username, SMOKE_PASSWORD: demo.password, SERVICE_KEY: serviceKey }
    const { code, stdout } = await runSmoke(['--auth', auth, '--business', business, '--internal', authInternal], env)
    expect(stdout.match(/^✘.*/gm)).to.equal(null)
    expect(stdout).to.match(/\n\d+ passed, 0 failed\n$/)
    expect(code).to.equal(0)
    for (const secret of [demo.password, serviceKey, 'lk_']) expect(stdout).not.to.include(secret)
  })

  it('passes if one address serves both services', async () => {
    const { business } = await runStartServer({ env: { PORT: '0', HOST: '127.0.0.1' } }).ready
    const { failed, passed } = await runOn({ auth: business, business })
    expect(failed).to.deep.equal([])
    expect(passed.join('\n')).to.include('one address for both')
  })

  it('lists what it cannot check without a user and a key', async () => {
    const { auth, business } = pair
    const lines = await runOn({ auth, business, user: null, serviceKey: null })
    expect(lines.failed).to.deep.equal([])
    expect(lines.unchecked.join('\n'))
      .to.match(/give --username and --password/)
      .and.match(/give --internal/)
    expect(lines.passed.length).to.be.above(20)
  })

  for (const [title, fault, patterns] of faults) {
    it(`finds that ${title}`, async () => {
      const { auth, business, internal } = pair
      const behind = await Promise.all([startProxy(auth, fault, internal), startProxy(business, fault, internal)])
      const [authProxy, businessProxy] = behind as [string, string]
      const { failed } = await runOn({ auth: authProxy, business: businessProxy })
      for (const pattern of patterns) expect(failed.join('\n')).to.match(new RegExp(pattern, 'm'))
      for (const line of failed)
        expect(
          patterns.some(pattern => pattern.test(line)),
          line,
        ).to.equal(true)
    })
  }

  it('finds a 401 from /data while Auth gives no verdict, and a 503 without Retry-After', async () => {
    const { url: auth } = await startAuth()
    const { url: cutOff } = await startBusiness('http://127.0.0.1:1')
    const asIs = await runOn({ auth, business: cutOff })
    expect(asIs.failed).to.have.length(1)
    expect(asIs.failed[0]).to.match(/^Business is ready: .*GET \/ready answered 503/)

    const turn: Fault = afterwards(exchange => {
      if (exchange.status === 503 && exchange.url === '/data') exchange.status = 401
    })
    const { failed } = await runOn({ auth, business: await startProxy(cutOff, turn, '') })
    expect(failed.join('\n')).to.include('/data answered 401 while Auth gives no verdict, so an outage logs users out')
    const mute = await runOn({ auth, business: await startProxy(cutOff, without('retry-after'), '') })
    expect(mute.failed.join('\n')).to.match(/Retry-After is missing on GET \/ready, GET \/data/)
  })

  it('finds plain HTTP, the demo user and an open internal port on an address that is not loopback', async () => {
    // 0.0.0.0 does not count as loopback, although Linux routes it there.
    const auth = await startAuth({ env: { HOST: '0.0.0.0', INTERNAL_HOST: '0.0.0.0' } })
    const business = await startBusiness(auth.internalUrl, { HOST: '0.0.0.0' })
    const internalPorts = [Number(new URL(auth.internalUrl).port)]
    const { failed } = await runOn({ auth: auth.url, business: business.url, internalPorts })
    expect(failed).to.have.length(4)
    expect(failed[0]).to.include('plain HTTP lets others read tokens and passwords')
    expect(failed[1]).to.include('plain HTTP')
    expect(failed[2]).to.include('can log in with the password from the README')
    expect(failed[3]).to.match(/the internal listener is reachable from here: http:\/\/0\.0\.0\.0:\d+ answered 200/)
  })

  it('finds an untrusted certificate and one that expires soon', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'latchkey-smoke-'))
    const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
    const of = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-subj', '/CN=smoke']
    const names = ['-addext', 'subjectAltName=IP:127.0.0.1']
    const make = (days: string) =>
      execFileSync('openssl', ['req', '-x509', ...of, ...names, '-days', days, '-keyout', key, '-out', cert], {
        stdio: 'pipe',
      })
    try {
      for (const [days, failures] of [
        ['3', 1],
        ['90', 0],
      ] as const) {
        make(days)
        const env = { PORT: '0', HOST: '127.0.0.1', TLS_CERT_FILE: cert, TLS_KEY_FILE: key }
        const { business } = await runStartServer({ env }).ready
        const args = ['--auth', business, '--business', business]
        const unknown = await runSmoke(args)
        expect(unknown.stdout).to.match(/✘ Latchkey responds .*the issuer of the certificate of .* is not trusted/)
        const { stdout } = await runSmoke(args, { NODE_EXTRA_CA_CERTS: cert })
        expect(stdout.match(/^✘.*the certificate expires in 2 days: renew it now/gm) ?? []).to.have.length(failures)
        expect(stdout).to.match(new RegExp(`\\n\\d+ passed, ${failures} failed\\n$`))
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it('stops in time if an address never responds', async () => {
    const silent = createServer(() => {})
    silent.listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const address = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`
    const times = { budgetMs: 2000, responseTimeoutMs: 500 }
    const startedAt = performance.now()
    const { failed } = await runOn({ auth: pair.auth, business: address }, times)
    expect(performance.now() - startedAt).to.be.below(20_000)
    expect(failed.join()).to.include('a firewall drops packets, or a process hangs')
    silent.close()
  })

  it('finds swapped addresses, a public address given as the internal one, and a wrong service key', async () => {
    const { auth, business, internal } = pair
    const swapped = await runOn({ auth: business, business: auth })
    expect(swapped.failed.join()).to.include('it may be the address of Business')
    const same = await runOn({ auth, business, internal: auth })
    expect(same.failed.join()).to.include('this is the address of a public listener')
    const wrongKey = await runOn({ auth, business, internal, serviceKey: 'f'.repeat(40) })
    expect(wrongKey.failed.join()).to.include('Auth has another SERVICE_KEY')
  })

  it('reports that nothing listens, and exits with 1', async () => {
    const { code, stdout } = await runSmoke(['--auth', 'http://127.0.0.1:1', '--business', 'http://127.0.0.1:1'])
    expect(stdout).to.match(/^✘ Latchkey responds .*nothing listens at http:\/\/127\.0\.0\.1:1 \(connection refused\)/)
    expect(stdout).to.match(/\n0 passed, 1 failed\n$/)
    expect(code).to.equal(1)
  })

  it('exits with 2 on wrong usage', async () => {
    const cases = [
      ['--auth', 'http://a'],
      ['--auth', 'localhost:3001', '--business', 'http://localhost:3000'],
      ['--auth', 'http://a', '--business', 'http://b', '--username', 'alice'],
      ['--auth', 'http://a', '--business', 'http://b', '--colour'],
    ]
    const runs = cases.map(async args => {
      const { code, stderr } = await runSmoke(args)
      expect(code, args.join(' ')).to.equal(2)
      expect(stderr).to.include('Usage: latchkey doctor')
    })
    await Promise.all(runs)
  })
})

const proxies: http.Server[] = []
const patientTimes = { budgetMs: 50_000, responseTimeoutMs: 15_000 } // for a machine that is busy with other tests

async function startPair() {
  const { url: auth, internalUrl: internal } = await startAuth()
  const { url: business } = await startBusiness(internal)
  return { auth, business, internal }
}

async function runOn(target: Partial<Target> & Pick<Target, 'auth' | 'business'>, times = patientTimes) {
  const lines = { passed: [] as string[], failed: [] as string[], unchecked: [] as string[] }
  const rest = { internal: null, internalPorts: [1], user: demo, serviceKey, allowsHttp: false }
  await runChecks({ ...rest, ...target }, (outcome, title, seen) => lines[outcome].push(`${title}: ${seen}`), times)
  return lines
}

function runSmoke(args: string[], env: Record<string, string> = {}) {
  return new Promise<{ code: number; stdout: string; stderr: string }>(resolve => {
    const given = { ...bareEnvironment(), ...env }
    execFile(process.execPath, ['commands/latchkey.ts', 'doctor', ...args], { env: given }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr })
    })
  })
}

async function startProxy(upstream: string, fault: Fault, internal: string): Promise<string> {
  const server = http.createServer(async (req: IncomingMessage, res) => {
    const { method = '', url = '', rawHeaders: sent, headers } = req
    const { authorization, token: header } = headers
    const token = header ?? (authorization?.startsWith('Bearer ') ? authorization.slice(7) : null)
    const content = await text(req)
    const exchange: Exchange = {
      method,
      url,
      sent: [...sent],
      token: token as string | null,
      content,
      status: 0,
      headers: {},
      body: '',
    }
    await fault(exchange, async () => void Object.assign(exchange, await forward(upstream, exchange)), internal)
    delete exchange.headers['transfer-encoding']
    exchange.headers['content-length'] = exchange.status === 204 ? undefined : Buffer.byteLength(exchange.body)
    if (exchange.status === 204) delete exchange.headers['content-length']
    res.writeHead(exchange.status, exchange.headers).end(exchange.body)
  })
  proxies.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function forward(origin: string, { method, url, sent, content }: Exchange) {
  const request = http.request(`${origin}${url}`, { method, headers: sent, agent: false })
  request.end(content)
  const [answer] = (await once(request, 'response')) as [IncomingMessage]
  const { connection, 'keep-alive': keepAlive, ...headers } = answer.headers
  return { status: answer.statusCode as number, headers: headers as OutgoingHttpHeaders, body: await text(answer) }
}

type CachedResponse = Pick<Exchange, 'status' | 'headers' | 'body'>

function cacheVerdicts(): Fault {
  const kept = new Map<string, { until: number; answer: CachedResponse }>()
  return async (exchange, pass) => {
    if (exchange.url !== '/data' || exchange.token === null) return pass()
    const found = kept.get(exchange.token)
    if (found && found.until > performance.now()) return void Object.assign(exchange, structuredClone(found.answer))
    await pass()
    const { status, headers, body } = exchange
    if (status === 200)
      kept.set(exchange.token, {
        until: performance.now() + 60_000,
        answer: structuredClone({ status, headers, body }),
      })
  }
}

function cacheDataForAll(): Fault {
  return async (exchange, pass) => {
    await pass()
    if (exchange.method === 'GET' && exchange.url.startsWith('/data'))
      Object.assign(exchange, { status: 200, body: '{"data":"old"}' })
  }
}
