// The nginx configuration of docs/deploy.md, in a real nginx in front of a service, with a real Auth behind it.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { freePort } from './support/freePort.ts'
import { closeServers, demo, logIn, post, startAuth } from './support/servers.ts'
import { until } from './support/until.ts'

const nginx = ['/usr/sbin/nginx', 'nginx'].find(path => spawnSync(path, ['-v']).error === undefined)

describe('nginx, configured as docs/deploy.md says', () => {
  let url: string
  let auth: Awaited<ReturnType<typeof startAuth>>
  let service: Server
  let proxy: ChildProcess
  let folder: string
  let seen: IncomingHttpHeaders[] = []

  before(async function () {
    if (nginx === undefined) this.skip()
    auth = await startAuth()
    service = createServer((req, res) => {
      seen.push(req.headers)
      res.end('hello')
    }).listen(0, '127.0.0.1')
    await once(service, 'listening')
    const [, block = ''] = /```nginx\n(.*?)```/s.exec(readFileSync('docs/deploy.md', 'utf8')) ?? []
    const port = await freePort()
    const server = block
      .replace('listen 8080', `listen 127.0.0.1:${port}`)
      .replace('http://127.0.0.1:9000', `http://127.0.0.1:${(service.address() as AddressInfo).port}`)
      .replace('http://127.0.0.1:3101', auth.internalUrl)
    folder = mkdtempSync(join(tmpdir(), 'latchkey-nginx-'))
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
      name => `${name}_temp_path ${folder}/${name};`,
    )
    writeFileSync(
      join(folder, 'nginx.conf'),
      `daemon off; pid ${folder}/pid; error_log stderr crit;\nevents {}\nhttp { access_log off; ${paths.join(' ')}\n${server}}`,
    )
    proxy = spawn(nginx as string, ['-p', folder, '-c', join(folder, 'nginx.conf')], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    url = `http://127.0.0.1:${port}`
    await until(() => fetch(url).catch(() => null))
    seen = []
  })
  after(async () => {
    // Not SIGKILL: its workers would outlive it.
    if (proxy?.kill('SIGTERM')) await once(proxy, 'exit')
    service?.close()
    service?.closeAllConnections()
    await closeServers()
    if (folder) rmSync(folder, { recursive: true })
  })

  const ask = (headers: Record<string, string> = {}) => fetch(`${url}/anything?x=1`, { headers })

  it('passes a request on for a live token, and tells the service whose it is', async () => {
    const token = await logIn(auth.url)
    const forged = { 'x-auth-user': 'admin', 'x-auth-user-id': '1' }
    for (const headers of [{ authorization: `Bearer ${token}` }, { token }]) {
      seen = []
      expect((await ask({ ...headers, ...forged })).status).to.equal(200)
      expect(seen[0]).to.include({ 'x-auth-user': demo.username })
      expect(seen[0]?.['x-auth-user-id']).to.match(/^demo-/)
    }
  })

  it('refuses a request without a token, with a dead one, with two, and asks the service nothing', async () => {
    const token = await logIn(auth.url)
    await post(`${auth.url}/logout`, {}, { authorization: `Bearer ${token}` })
    seen = []
    const none: Record<string, string>[] = [{}, { token }, { token: 'x' }, { authorization: `Bearer ${token}`, token }]
    for (const headers of none) {
      const answer = await ask(headers)
      expect(answer.status).to.equal(401)
      expect(answer.headers.get('www-authenticate')).to.match(/^Bearer /)
    }
    expect(seen).to.deep.equal([])
  })

  it('answers 503 with Retry-After where Auth gives no verdict', async () => {
    const token = await logIn(auth.url)
    await auth.service.close()
    seen = []
    const answer = await ask({ token })
    expect(answer.status).to.equal(503)
    expect(answer.headers.get('retry-after')).to.equal('1')
    expect(seen).to.deep.equal([])
  })
})
