// The TLS front of docs/deploy.md: its nginx block runs in front of both services.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { freePort } from '../support/freePort.ts'
import { closeServers, startAuth, startBusiness } from '../support/servers.ts'
import { until } from '../support/until.ts'

const manual = readFileSync('docs/deploy.md', 'utf8')

describe('the TLS front of docs/deploy.md', () => {
  const nginx = ['/usr/sbin/nginx', 'nginx'].find(path => spawnSync(path, ['-v']).error === undefined)
  let folder: string
  let proxy: ChildProcess | undefined

  after(async () => {
    // nginx's workers would survive SIGKILL.
    if (proxy?.kill('SIGTERM')) await once(proxy, 'exit')
    await closeServers()
    if (folder) rmSync(folder, { recursive: true })
  })

  it('names in Caddy and in nginx the ports that docker-compose.yml publishes', () => {
    const [, front = ''] = /^### A TLS front$(.*?)^### /ms.exec(manual) ?? []
    for (const port of ['127.0.0.1:3000', '127.0.0.1:3001']) expect(front.split(port)).to.have.length(3)
  })

  it('forwards to both services in nginx, with the client address and the protocol https', async function () {
    if (nginx === undefined) {
      console.log('  not tested: the TLS front, because nginx is not installed')
      this.skip()
    }
    const env = { NODE_ENV: 'production', TRUSTED_PROXIES: '1', ACCESS_LOG: 'all' }
    const auth = await startAuth({ env })
    const business = await startBusiness(auth.internalUrl, env)
    folder = mkdtempSync(join(tmpdir(), 'latchkey-front-'))
    const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')]
    const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=a']
    execFileSync('openssl', [...made, '-days', '2', '-keyout', key, '-out', certificate], { stdio: 'ignore' })
    const port = await freePort()
    const [block = ''] = [...manual.matchAll(/```nginx\n(.*?)```/gs)].map(([, text]) => text).slice(-1)
    const http = block
      .replaceAll('listen 443', `listen 127.0.0.1:${port}`)
      .replace(/\/etc\S+fullchain\.pem/, certificate)
      .replace(/\/etc\S+privkey\.pem/, key)
      .replace('127.0.0.1:3001', new URL(auth.url).host)
      .replace('127.0.0.1:3000', new URL(business.url).host)
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
      name => `${name}_temp_path ${folder}/${name};`,
    )
    const main = `daemon off; pid ${folder}/pid; error_log stderr crit;\nevents {}\n`
    writeFileSync(join(folder, 'nginx.conf'), `${main}http { access_log off; ${paths.join(' ')}\n${http}}`)
    proxy = spawn(nginx as string, ['-p', folder, '-c', join(folder, 'nginx.conf')], { stdio: 'ignore' })

    const get = (host: string, path: string) =>
      new Promise<{ status: number | undefined; hsts: unknown }>((resolve, reject) => {
        const headers = { host, 'x-forwarded-for': '6.6.6.6', 'x-forwarded-proto': 'http' }
        const options = { host: '127.0.0.1', port, path, headers, servername: host, rejectUnauthorized: false }
        request({ ...options, agent: false }, answer => {
          answer.resume()
          resolve({ status: answer.statusCode, hsts: answer.headers['strict-transport-security'] })
        })
          .on('error', reject)
          .end()
      })
    await until(() => get('a', '/health').catch(() => null))
    expect((await get('api.example.com', '/data')).status).to.equal(401)
    const account = await get('auth.example.com', '/account')
    expect([account.status, account.hsts]).to.deep.equal([200, 'max-age=31536000'])
    for (const [lines, path] of [
      [business.lines, '/data'],
      [auth.lines, '/account'],
    ] as const) {
      expect(lines.find(line => line['path'] === path)?.['address']).to.equal('127.0.0.1')
    }
  })
})
