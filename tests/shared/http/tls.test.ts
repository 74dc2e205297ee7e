// TLS on the listeners, and Business's calls to Auth over TLS, with real certificates and handshakes.
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { get, type RequestOptions, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { SecureVersion } from 'node:tls'
import { expect } from 'chai'
import { readAuthConfig } from '../../../services/auth/config.ts'
import { readBusinessConfig } from '../../../services/business/config.ts'
import { ConfigError } from '../../../shared/config/readSettings.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import { logIn } from '../../support/factories.ts'
import { endProcesses, startProcess } from '../../support/processes.ts'
import { sendRaw } from '../../support/raw.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'
import { cleanUp, runStartServer } from '../../support/startServer.ts'

const nowhere = 'http://127.0.0.1:1'
const folder = mkdtempSync(join(tmpdir(), 'latchkey-tls-'))
const path = (name: string) => join(folder, name)

/** A self-signed certificate for this machine, and its key. */
function makeCertificate(name: string, subject = 'DNS:localhost,IP:127.0.0.1'): { cert: string; key: string } {
  const [cert, key] = [path(`${name}.cert.pem`), path(`${name}.key.pem`)]
  const of = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-days', '2', '-subj', `/CN=${name}`]
  execFileSync(
    'openssl',
    ['req', '-x509', ...of, '-addext', `subjectAltName=${subject}`, '-keyout', key, '-out', cert],
    {
      stdio: 'pipe',
    },
  )
  return { cert, key }
}

describe('TLS', () => {
  let own: { cert: string; key: string }
  let other: { cert: string; key: string }
  let ca: string
  let outside: Record<string, string>
  let inside: Record<string, string>

  before(() => {
    own = makeCertificate('own')
    other = makeCertificate('other', 'DNS:other.example')
    ca = readFileSync(own.cert, 'utf8')
    outside = { TLS_CERT_FILE: own.cert, TLS_KEY_FILE: own.key }
    inside = { INTERNAL_TLS_CERT_FILE: own.cert, INTERNAL_TLS_KEY_FILE: own.key }
  })
  after(async () => {
    await endProcesses()
    await closeServers()
    await cleanUp()
    rmSync(folder, { recursive: true })
  })

  async function ask(url: string, { body, ...options }: RequestOptions & { body?: unknown } = {}) {
    const sent = request(url, { ca, agent: false, ...options })
    sent.end(body === undefined ? undefined : JSON.stringify(body))
    const [answer] = await once(sent, 'response')
    return { status: answer.statusCode, headers: answer.headers, text: await text(answer) }
  }

  describe('on a listener', () => {
    let url: string

    before(async () => {
      url = (await startBusiness(nowhere, outside)).url
    })

    it('gives it an https:// address, and its answers have HSTS for a year', async () => {
      expect(url).to.match(/^https:\/\/127\.0\.0\.1:\d+$/)
      const { status, headers } = await ask(`${url}/data`)
      expect([status, headers['strict-transport-security']]).to.deep.equal([401, 'max-age=31536000'])
    })

    it('is not announced over plain HTTP: no HSTS', async () => {
      const plain = await startBusiness(nowhere)
      const answer = await fetch(`${plain.url}/health`, { headers: { connection: 'close' } })
      expect(answer.headers.has('strict-transport-security')).to.equal(false)
    })

    for (const version of ['TLSv1.2', 'TLSv1.3'] as SecureVersion[]) {
      it(`accepts ${version}`, async () => {
        expect((await ask(`${url}/health`, { minVersion: version, maxVersion: version })).status).to.equal(200)
      })
    }

    for (const version of ['TLSv1', 'TLSv1.1'] as SecureVersion[]) {
      it(`refuses ${version}`, async () => {
        const options = { ca, minVersion: version, maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0', agent: false }
        const [error] = await once(
          get(`${url}/health`, options).on('response', () => {}),
          'error',
        )
        expect(error.message).to.include('alert number 70') // protocol_version
      })
    }

    it('closes connections with plain HTTP or other bytes without an answer, and keeps serving', async () => {
      for (const bytes of ['GET /health HTTP/1.1\r\nHost: a\r\n\r\n', '\x16\x03\x01\x00\x06broken', '\0'.repeat(500)]) {
        const answer = await sendRaw(url, bytes, 5000)
        expect([answer.status, answer.closed]).to.deep.equal([0, true])
        expect(answer.text).not.to.include('HTTP')
      }
      expect((await ask(`${url}/health`)).status).to.equal(200)
    })

    it('answers malformed HTTP inside it like plain HTTP: a problem, then closed', async () => {
      const { status, text } = await ask(`${url}/data`, { headers: { 'x-long': 'a'.repeat(20_000) } })
      expect([status, JSON.parse(text).error]).to.deep.equal([431, 'invalid_request'])
    })

    it('is on every public listener of Auth and not on its internal one, which has its own settings', async () => {
      const auth = await startAuth({ env: outside })
      expect(auth.internalUrl).to.match(/^http:/)
      const headers = { 'content-type': 'application/json' }
      const { status, text } = await ask(`${auth.url}/login`, { method: 'POST', headers, body: demo })
      expect(status).to.equal(200)
      expect(JSON.parse(text).token).to.be.a('string')
    })
  })

  describe('a certificate', () => {
    const problemsOf = (env: Record<string, string>, read: (env: Record<string, string>) => unknown) => {
      try {
        read({ SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey, ...env })
        return []
      } catch (error) {
        if (error instanceof ConfigError) return error.problems
        throw error
      }
    }
    for (const prefix of ['', 'INTERNAL_']) {
      const [cert, key] = [`${prefix}TLS_CERT_FILE`, `${prefix}TLS_KEY_FILE`]
      const noCert = `${cert}: expected the path of a readable PEM file with a certificate and its intermediates; `
      const noKey = `${key}: expected the path of a readable PEM file with an unencrypted private key; `
      const cases: [what: string, env: () => Record<string, string>, problem: () => string][] = [
        ['alone', () => ({ [cert]: own.cert }), () => `${cert}, ${key}: expected both or neither; one is missing`],
        [
          'whose key is alone',
          () => ({ [key]: own.key }),
          () => `${cert}, ${key}: expected both or neither; one is missing`,
        ],
        [
          'that does not exist',
          () => ({ [cert]: path('none'), [key]: own.key }),
          () => `${noCert}got "${path('none')}"`,
        ],
        ['that is a key', () => ({ [cert]: own.key, [key]: own.key }), () => `${noCert}got "${own.key}"`],
        ['whose key is not a key', () => ({ [cert]: own.cert, [key]: own.cert }), () => `${noKey}got "${own.cert}"`],
        ['whose key is encrypted', () => ({ [cert]: own.cert, [key]: encrypt() }), () => `${noKey}got "${encrypt()}"`],
        ['that is empty', () => ({ [cert]: empty(), [key]: own.key }), () => `${noCert}got "${empty()}"`],
        [
          "with another's key",
          () => ({ [cert]: own.cert, [key]: other.key }),
          () =>
            `${cert}, ${key}: expected a certificate and its own private key; they do not match (ERR_OSSL_X509_KEY_VALUES_MISMATCH)`,
        ],
      ]
      for (const [what, env, problem] of cases) {
        it(`${what} is reported under ${cert} and ${key}`, () => {
          for (const read of [readAuthConfig, readBusinessConfig]) {
            expect(problemsOf(env(), read)).to.deep.equal([problem()])
          }
        })
      }
    }
    function encrypt(): string {
      const file = path('encrypted.pem')
      execFileSync('openssl', ['pkcs8', '-topk8', '-in', own.key, '-passout', 'pass:x', '-out', file])
      return file
    }
    function empty(): string {
      writeFileSync(path('empty.pem'), '')
      return path('empty.pem')
    }

    it('that cannot be used prevents the start with that sentence', async () => {
      const env = { TLS_CERT_FILE: own.cert, TLS_KEY_FILE: other.key }
      const failure = await startProcess('business', { env }).catch((error: Error) => error.message)
      expect(failure).to.match(/^ended with 1: TLS_CERT_FILE, TLS_KEY_FILE: expected a certificate and its own/)
    })
  })

  describe('between Business and Auth', () => {
    let auth: Awaited<ReturnType<typeof startAuth>>
    let token: string

    before(async () => {
      auth = await startAuth({ env: inside })
      token = await logIn(auth.url)
    })

    async function dataWith(env: Record<string, string>) {
      const business = await startProcess('business', { env: { AUTH_INTERNAL_URL: auth.internalUrl, ...env } })
      const answer = await fetch(`${business.addresses['business']}/data`, { headers: { token, connection: 'close' } })
      return { status: answer.status, lines: business.lines }
    }

    it('is 503 if the certificate of Auth is not trusted', async () => {
      const { status, lines } = await dataWith({})
      expect(status).to.equal(503)
      const { cause } = lines.find(({ event }) => event === 'auth_unavailable') as unknown as {
        cause: { code: string }
      }
      expect(cause.code).to.equal('DEPTH_ZERO_SELF_SIGNED_CERT')
    })

    it('is 503 if only another certificate is trusted', async () => {
      expect((await dataWith({ NODE_EXTRA_CA_CERTS: other.cert })).status).to.equal(503)
    })

    it('works if NODE_EXTRA_CA_CERTS contains it', async () => {
      expect((await dataWith({ NODE_EXTRA_CA_CERTS: own.cert })).status).to.equal(200)
    })

    it('is 503 if Auth speaks plain HTTP', async () => {
      const plain = await startAuth()
      const business = await startBusiness(plain.internalUrl.replace('http:', 'https:'))
      const answer = await fetch(`${business.url}/data`, { headers: { token, connection: 'close' } })
      expect(answer.status).to.equal(503)
    })
  })

  it('works with ./startServer for both services, whatever name the certificate has', async () => {
    const named = { TLS_CERT_FILE: other.cert, TLS_KEY_FILE: other.key }
    const run = runStartServer({ env: { ...named, ...inside, NODE_EXTRA_CA_CERTS: own.cert } })
    const { auth, business, authInternal } = await run.ready
    expect([auth, business, authInternal].map(url => new URL(url).protocol)).to.deep.equal(Array(3).fill('https:'))
    const options = { ca: readFileSync(other.cert, 'utf8'), servername: 'other.example' }
    const headers = { 'content-type': 'application/json' }
    const login = await ask(`${auth}/login`, { ...options, method: 'POST', headers, body: demo })
    const { token } = JSON.parse(login.text) as { token: string }
    expect((await ask(`${business}/data`, { ...options, headers: { token } })).status).to.equal(200)
    run.process.kill('SIGTERM')
    expect(await run.ended).to.equal(0)
  })
})
