// The configurations in deploy/proxies, run in a real nginx and Caddy in front of a service, with a real Auth. The
// configurations of Traefik and Envoy are checked against schemas.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { expect } from 'chai'
import { parse } from 'yaml'
import { ask, post } from '../support/client.ts'
import { adminKey, demo } from '../support/credentials.ts'
import { logIn } from '../support/factories.ts'
import { freePort } from '../support/freePort.ts'
import { sendRaw } from '../support/raw.ts'
import { closeServers, startAuth } from '../support/servers.ts'
import { until } from '../support/until.ts'

interface Proxy {
  file: string
  binary: string | undefined
  /** Starts the proxy in its own folder. */
  start(binary: string, folder: string, config: string): ChildProcess
}

const findBinary = (paths: string[], version: string) =>
  paths.find(path => spawnSync(path, [version]).error === undefined)

const proxies: Record<string, Proxy> = {
  nginx: {
    file: 'deploy/proxies/nginx.conf',
    binary: findBinary(['/usr/sbin/nginx', 'nginx'], '-v'),
    start(binary, folder, config) {
      const kinds = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      const paths = kinds.map(kind => `${kind}_temp_path ${folder}/${kind};`).join(' ')
      const path = join(folder, 'nginx.conf')
      writeFileSync(
        path,
        `daemon off; pid ${folder}/pid; error_log stderr crit;\nevents {}\nhttp { access_log off; ${paths}\n${config}}`,
      )
      return spawn(binary, ['-p', folder, '-c', path], { stdio: ['ignore', 'ignore', 'inherit'] })
    },
  },
  Caddy: {
    file: 'deploy/proxies/Caddyfile',
    binary: findBinary(['/usr/bin/caddy', 'caddy'], 'version'),
    start(binary, folder, config) {
      const path = join(folder, 'Caddyfile')
      writeFileSync(path, `{\n\tadmin off\n\tauto_https off\n}\n${config}`)
      const env = { ...process.env, HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder }
      return spawn(binary, ['run', '--config', path], { stdio: 'ignore', env })
    },
  },
}

interface Seen {
  /** Names and values alternate, as received. */
  headers: string[]
  body: string
}

/**
 * The values of all headers that a framework could read as `name`: some frameworks ignore case and treat underscores as dashes.
 */
function valuesLike(name: string, { headers }: Seen): string[] {
  return headers.filter((_, i) => i % 2 === 1 && headers[i - 1]?.toLowerCase().replaceAll('_', '-') === name)
}

const identityOf = (seen: Seen | undefined) =>
  seen && {
    id: valuesLike('x-auth-user-id', seen),
    user: valuesLike('x-auth-user', seen),
    roles: valuesLike('x-auth-roles', seen),
    scope: valuesLike('x-auth-scope', seen),
  }

const noRights = { roles: ['-'], scope: ['-'] }

for (const [name, { file, binary, start }] of Object.entries(proxies)) {
  describe(`${name}, configured by ${file}`, () => {
    let url: string
    let auth: Awaited<ReturnType<typeof startAuth>>
    let service: Server
    let proxy: ChildProcess
    let folder: string
    let seen: Seen[] = []

    before(async function () {
      if (binary === undefined) {
        console.log(`  not tested: ${file}, because ${name} is not installed`)
        return this.skip()
      }
      auth = await startAuth()
      service = createServer(async (req, res) => {
        const chunks: Buffer[] = []
        for await (const chunk of req) chunks.push(chunk as Buffer)
        seen.push({ headers: req.rawHeaders, body: Buffer.concat(chunks).toString() })
        res.end('hello')
      }).listen(0, '127.0.0.1')
      await once(service, 'listening')
      const port = await freePort()
      const config = readFileSync(file, 'utf8')
        .replace(/^:8080 \{/m, `:${port} {\n\tbind 127.0.0.1`)
        .replace('listen 8080', `listen 127.0.0.1:${port}`)
        .replaceAll(/127\.0\.0\.1:9000(?!\d)/g, `127.0.0.1:${(service.address() as AddressInfo).port}`)
        .replaceAll(/127\.0\.0\.1:3101(?!\d)/g, new URL(auth.internalUrl).host)
      folder = mkdtempSync(join(tmpdir(), 'latchkey-proxy-'))
      proxy = start(binary, folder, config)
      url = `http://127.0.0.1:${port}`
      await until(() => fetch(url).catch(() => null))
    })
    beforeEach(() => {
      seen = []
    })
    after(async () => {
      // nginx's workers would survive SIGKILL.
      if (proxy?.kill('SIGTERM')) await once(proxy, 'exit')
      service?.close()
      service?.closeAllConnections()
      await closeServers()
      if (folder) rmSync(folder, { recursive: true })
    })

    /** Sends a request with these header lines on a connection of its own. */
    const send = (lines: string[]) =>
      sendRaw(
        url,
        `GET /anything?x=1 HTTP/1.1\r\nHost: a\r\n${lines.map(line => `${line}\r\n`).join('')}Connection: close\r\n\r\n`,
        5000,
      )

    const forgeries: Record<string, string[]> = {
      'no header of its own': [],
      'forged roles and scope': ['X-Auth-Roles: admin', 'x_auth_roles: admin', 'X-Auth-Scope: x', 'X-Auth_Scope: x'],
      'roles and scope named by Connection': ['Connection: X-Auth-Roles, X-Auth-Scope'],
      'forged headers': ['X-Auth-User: admin', 'X-Auth-User-Id: 1'],
      'forged headers, twice': ['X-Auth-User: admin', 'x-auth-user: root', 'X-Auth-User-Id: 1', 'X-AUTH-USER-ID: 2'],
      'forged headers that are empty': ['X-Auth-User:', 'X-Auth-User-Id:'],
      'forged headers with underscores': ['X_Auth_User: admin', 'X-Auth_User: admin', 'x_auth-user: admin'],
      'forged ids with underscores': ['X_Auth_User_Id: 1', 'X-Auth_User-Id: 1', 'X-Auth-User_Id: 1'],
      'identity headers named by Connection': ['Connection: X-Auth-User, X-Auth-User-Id'],
      'both, on separate lines': ['Connection: keep-alive', 'Connection: x-auth-user-id', 'X-Auth-User: admin'],
      'headers with underscores named by Connection': ['Connection: X_Auth_User', 'X_Auth_User: admin'],
    }

    for (const [what, lines] of Object.entries(forgeries)) {
      it(`passes the identity of a user and of a guest to the service, whatever the client sends: ${what}`, async () => {
        const terms = { kind: 'fixed', ttlSeconds: 60 }
        const guest = String((await ask('POST', `${auth.internalUrl}/tokens`, adminKey, terms)).body['token'])
        const user = await logIn(auth.url)
        const { body } = await ask('GET', `${auth.url}/users/me`, user)
        for (const [header, identity] of [
          [`Authorization: Bearer ${user}`, { id: [body['id']], user: [demo.username], ...noRights }],
          [`Token: ${user}`, { id: [body['id']], user: [demo.username], ...noRights }],
          [`Authorization: Bearer ${guest}`, { id: ['-'], user: ['-'], ...noRights }],
        ] as const) {
          expect((await send([header, ...lines])).status).to.equal(200)
          expect(identityOf(seen.pop())).to.deep.equal(identity)
        }
        expect(seen).to.deep.equal([])
      })
    }

    it('asks Auth for no role or scope because a client has one in its query', async () => {
      const token = await logIn(auth.url)
      for (const query of ['role=admin', 'scope=x', 'role=%20', 'a=1&role=admin']) {
        const answer = await fetch(`${url}/orders?${query}`, { headers: { token, connection: 'close' } })
        expect(answer.status, query).to.equal(200)
      }
    })

    it('passes the body of a request on to the service, and not to Auth', async () => {
      const token = await logIn(auth.url)
      const body = 'x'.repeat(5000) // small enough for nginx to keep in memory
      const answer = await fetch(`${url}/orders`, { method: 'POST', headers: { token, connection: 'close' }, body })
      expect([answer.status, await answer.text()]).to.deep.equal([200, 'hello'])
      expect(seen.map(({ body }) => body)).to.deep.equal([body])
    })

    it('refuses a request without a token, with a dead one or with two, without a call to the service', async () => {
      const token = await logIn(auth.url)
      await post(`${auth.url}/logout`, {}, { authorization: `Bearer ${token}` })
      const refused = [[], [`Token: ${token}`], ['Token: x'], [`Authorization: Bearer ${token}`, `Token: ${token}`]]
      for (const lines of [...refused, ['X-Auth-User: admin', 'X-Auth-User-Id: 1']]) {
        const answer = await send(lines)
        expect(answer.status).to.equal(401)
        expect(answer.headers.get('www-authenticate')).to.match(/^\s*Bearer /)
      }
      expect(seen).to.deep.equal([])
    })

    it('answers 429 with the time to wait when the token is used more often than it may be', async () => {
      const terms = { kind: 'fixed', ttlSeconds: 600, rate: { perMinute: 1, burst: 1 } }
      const token = String((await ask('POST', `${auth.internalUrl}/tokens`, adminKey, terms)).body['token'])
      expect((await send([`Token: ${token}`])).status).to.equal(200)
      seen = []
      const answer = await send([`Token: ${token}`])
      expect(answer.status).to.equal(429)
      const seconds = Number(answer.headers.get('retry-after'))
      expect(seconds).to.be.within(50, 60)
      expect(answer.headers.get('ratelimit')?.trim()).to.equal(`"token";r=0;t=${seconds}`)
      expect(seen).to.deep.equal([])
    })

    it('answers 503 with Retry-After when Auth gives no verdict', async () => {
      const token = await logIn(auth.url)
      await auth.service.close()
      const answer = await send([`Token: ${token}`])
      expect(answer.status).to.equal(503)
      expect(answer.headers.get('retry-after')?.trim()).to.equal('1')
      expect(seen).to.deep.equal([])
    })
  })
}

describe('the configurations of proxies that are not run', () => {
  const text = (file: string) => readFileSync(`deploy/proxies/${file}`, 'utf8')
  const read = (file: string) => parse(text(file), { uniqueKeys: true, strict: true })

  function problemsOf(schema: string, config: unknown): unknown[] {
    const validate = new Ajv2020({ strict: false, allErrors: true }).compile(
      JSON.parse(readFileSync(`tests/deploy/${schema}`, 'utf8')),
    )
    return validate(config) ? [] : (validate.errors ?? [])
  }

  it('state that they are not run, and name the version that they were written for', () => {
    for (const file of ['traefik.yml', 'envoy.yaml']) {
      expect(text(file)).to.match(/Not run in \w+: written for \d+\.\d+/)
    }
  })

  it('have only members that the proxy knows, with values of their type', () => {
    expect(problemsOf('traefik.schema.json', read('traefik.yml'))).to.deep.equal([])
    expect(problemsOf('envoy.schema.json', read('envoy.yaml'))).to.deep.equal([])
  })

  it('would fail this check with a member that the proxy does not know, or with a value of another type', () => {
    const traefik = read('traefik.yml')
    traefik.http.middlewares.latchkey.forwardAuth.authResponseHeader = ['X-Auth-User']
    expect(problemsOf('traefik.schema.json', traefik)).to.not.deep.equal([])
    for (const [wanted, planted] of [
      ['failure_mode_allow: false', 'failure_mode_allow: "no"'],
      ['failure_mode_allow: false', 'failure_mode_deny: true'],
      ['allowed_upstream_headers:', 'allowed_upstream_header:'],
      ['ServiceUnavailable', 'Unavailable'],
      ['timeout: 1s', 'timeout: 1'],
      ['http.router.v3.Router', 'http.router.v3.Rooter'],
    ] as const) {
      expect(text('envoy.yaml')).to.include(wanted)
      const config = parse(text('envoy.yaml').replace(wanted, planted))
      expect(problemsOf('envoy.schema.json', config), planted).to.not.deep.equal([])
    }
  })

  it('make Traefik remove every spelling of the identity headers before it calls Auth', () => {
    const { http } = parse(text('traefik.yml'))
    const { noIdentity, latchkey } = http.middlewares
    const names: string[] = latchkey.forwardAuth.authResponseHeaders
    const spellings = names.flatMap(name =>
      name
        .split('-')
        .reduce(
          (all: string[], part) =>
            all.flatMap(one => [`${one}-${part}`, `${one}_${part}`]).map(s => s.replace(/^[-_]/, '')),
          [''],
        ),
    )
    expect(noIdentity.headers.customRequestHeaders).to.deep.equal(
      Object.fromEntries(spellings.map(spelling => [spelling, ''])),
    )
    expect(http.routers.service.middlewares).to.deep.equal(['noIdentity', 'latchkey'])
  })
})
