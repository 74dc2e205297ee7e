// The `type` of an error leads to a page on the listener that sent it.
import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { type ErrorCode, statusOf } from '../../../shared/http/errors.ts'
import { problemTypes, typeOf } from '../../../shared/http/problemTypes.ts'
import { sendRaw } from '../../support/raw.ts'
import { closeServers, openTestAuth, startBusiness } from '../../support/servers.ts'

const codes = Object.keys(statusOf) as ErrorCode[]

describe('the type of an error', () => {
  const urls: Record<string, string> = {}

  before(async () => {
    const { service } = await openTestAuth({ env: { DIALECTS: 'flask-jwt:0', API_DOCS: 'off' } })
    Object.assign(urls, await service.listen())
    const business = await startBusiness(urls['authInternal'] as string)
    Object.assign(urls, { business: business.url, businessInternal: business.internalUrl })
  })
  after(closeServers)

  it('leads to a page on every listener, also if the public listeners do not describe their routes', async () => {
    expect(Object.keys(urls)).to.have.length(5)
    for (const [name, url] of Object.entries(urls)) {
      for (const code of codes) {
        const answer = await fetch(new URL(typeOf(code), url))
        expect(answer.status, `${name}, ${code}`).to.equal(200)
        expect(answer.headers.get('content-type')).to.equal('text/html; charset=utf-8')
        const page = await answer.text()
        expect(page).to.include(`<h1>${problemTypes[code].title}</h1>`).and.to.include(`status ${statusOf[code]} and`)
        expect(page).to.not.match(/`|undefined/)
      }
    }
  })

  it('is a reference with the full path, which a client resolves against the address of its request', async () => {
    for (const [name, url] of Object.entries(urls)) {
      const answer = await fetch(`${url}/nowhere/at/all`)
      const problem = (await answer.json()) as { type: string; title: string; error: string }
      expect(problem, name).to.include({ type: '/problems/not_found', title: 'Not found', error: 'not_found' })
      expect((await fetch(new URL(problem.type, answer.url))).status, name).to.equal(200)
    }
  })

  it('is there even if the request was not HTTP', async () => {
    const { body } = await sendRaw(urls['auth'] as string, 'nonsense\r\n\r\n', 5000)
    expect(JSON.parse(body)).to.include({ type: '/problems/invalid_request', title: 'Invalid request', status: 400 })
  })

  it('has no page if there is no such code', async () => {
    for (const code of ['nothing', 'constructor', '__proto__', '%3Cscript%3E']) {
      const answer = await fetch(`${urls['auth']}/problems/${code}`)
      expect(answer.status, code).to.equal(404)
      expect(await answer.text()).to.not.include('script')
    }
  })

  it('has a page under a policy that allows its own style and nothing else', async () => {
    const answer = await fetch(`${urls['auth']}/problems/conflict`)
    const policy = answer.headers.get('content-security-policy')
    expect(policy).to.match(/^default-src 'none'; style-src 'sha256-[\w+/]+=*';/)
    expect(await answer.text()).to.not.match(/<script|https?:|src=/)
  })

  it('is explained in docs/http-api.md in the same words', () => {
    const withoutLinks = readFileSync('docs/http-api.md', 'utf8').replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    const rows = [...withoutLinks.matchAll(/^\| `(\w+)` \| (\d{3}) \| (.*) \|$/gm)]
    expect(rows.map(([, ...cells]) => cells)).to.deep.equal(
      codes.map(code => [code, String(statusOf[code]), problemTypes[code].means]),
    )
  })
})
