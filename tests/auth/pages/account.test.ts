// GET /account, the page that a link in a mail opens: its responses and headers. Browser tests cover what the page does.
import { hash } from 'node:crypto'
import { Script } from 'node:vm'
import { expect } from 'chai'
import { post } from '../../support/client.ts'
import { closeServers, startAuth } from '../../support/servers.ts'

describe('the account page', () => {
  let url: string
  let answer: Response
  let html: string

  before(async () => {
    url = (await startAuth()).url
    answer = await fetch(`${url}/account`, { headers: { connection: 'close' } })
    html = await answer.text()
  })
  after(closeServers)

  const textsOf = (tag: string) =>
    [...html.matchAll(new RegExp(`<${tag}\\b[^>]*>(.*?)</${tag}>`, 'gs'))].map(([, text]) => text as string)
  const directives = () => {
    const policy = answer.headers.get('content-security-policy') ?? ''
    return new Map(policy.split('; ').map(text => [text.split(' ')[0], text.split(' ').slice(1)]))
  }
  const sourceOf = (text: string) => `'sha256-${hash('sha256', text, 'base64')}'`

  it('is HTML that is always revalidated, is not sniffed, and sends no Referer', () => {
    expect(answer.status).to.equal(200)
    expect(answer.headers.get('content-type')).to.equal('text/html; charset=utf-8')
    expect(answer.headers.get('cache-control')).to.equal('no-cache')
    expect(answer.headers.get('x-content-type-options')).to.equal('nosniff')
    expect(answer.headers.get('referrer-policy')).to.equal('no-referrer')
    expect(answer.headers.get('set-cookie')).to.equal(null)
    expect(html).to.match(/^<!doctype html>\n<html lang="en">/)
  })

  it('runs only its own script and style', () => {
    const [scripts, styles] = [textsOf('script'), textsOf('style')]
    expect([scripts.length, styles.length]).to.deep.equal([1, 1])
    expect(Object.fromEntries(directives())).to.deep.equal({
      'default-src': ["'none'"],
      'script-src': scripts.map(sourceOf),
      'style-src': styles.map(sourceOf),
      'connect-src': ["'self'"],
      'base-uri': ["'none'"],
      'form-action': ["'none'"],
      'frame-ancestors': ["'none'"],
    })
    // Inline code and styles that the policy's hashes do not cover: a browser would refuse them.
    expect(html.replace(/<(script|style)\b.*?<\/\1>/gs, '')).to.not.match(
      /<script|<style|\sstyle=|\son\w+=|javascript:/i,
    )
  })

  it('contains a script that parses and calls only the three routes for links', async () => {
    const [script = ''] = textsOf('script')
    expect(() => new Script(script)).to.not.throw()
    expect(script.match(/fetch\(.*?,/g)).to.deep.equal(['fetch(path,'])
    const paths = [...script.matchAll(/'((?:password|users)\/[\w/]+)'/g)].map(([, path]) => path)
    expect(paths).to.deep.equal(['password/reset', 'users/confirm', 'users/confirm/email'])
    for (const path of paths) {
      // The paths are relative to the page.
      const body = { token: 'junk', ...(path === 'password/reset' && { password: 'a CANARY that will do' }) }
      const { status } = await post(new URL(path as string, `${url}/account`).href, body, { connection: 'close' })
      expect(status, path).to.equal(401)
    }
  })

  it('accepts every token that a link can contain: a b64token of RFC 6750, which includes JWTs', () => {
    const [script = ''] = textsOf('script')
    const pattern = new RegExp(/\/(\^#.*\$)\/\.exec/.exec(script)?.[1] ?? 'none')
    for (const token of [`lk_${'a1B'.repeat(21)}`, 'eyJhbGciOiJ.eyJjbGllbnRf-WQi.I9GA1pS6_nj4', 'a-._~+/b==']) {
      for (const purpose of ['confirm', 'email', 'reset']) {
        expect(pattern.exec(`#${purpose}=${token}`)?.slice(1)).to.deep.equal([purpose, token])
      }
    }
    for (const hash of ['', '#', '#confirm', '#confirm=', '#other=lk_a', '#reset=a b', '#reset=<b>', '#reset=a%22']) {
      expect(pattern.test(hash), hash).to.equal(false)
    }
  })

  it('loads nothing from elsewhere: no URL, image, font or frame', () => {
    expect(html).to.not.match(/\/\/\w|@import|url\(|<(img|link|iframe|object|embed|base|a)\b|\ssrc=|\shref=|innerHTML/i)
  })

  it('is the same for every request', async () => {
    const requests: [path: string, headers: Record<string, string>][] = [
      ['/account?reset=lk_secret&x=<script>', {}],
      ['/account', { 'x-forwarded-host': 'evil.example', 'accept-language': 'de', cookie: 'a=b' }],
      ['/account', { authorization: 'Bearer junk' }],
    ]
    for (const [path, headers] of requests) {
      const other = await fetch(url + path, { headers: { connection: 'close', ...headers } })
      expect(other.status).to.equal(200)
      expect(await other.text()).to.equal(html)
    }
  })

  it('answers HEAD with the headers of GET', async () => {
    const head = await fetch(`${url}/account`, { method: 'HEAD', headers: { connection: 'close' } })
    expect(head.status).to.equal(200)
    expect(await head.text()).to.equal('')
    for (const name of ['content-type', 'content-length', 'content-security-policy', 'referrer-policy']) {
      expect(head.headers.get(name), name).to.equal(answer.headers.get(name))
    }
  })

  it('accepts no POST, PUT or DELETE', async () => {
    for (const method of ['POST', 'PUT', 'DELETE']) {
      const refused = await fetch(`${url}/account`, { method, headers: { connection: 'close' } })
      expect(refused.status).to.equal(405)
      expect(refused.headers.get('allow')).to.equal('HEAD, GET')
    }
  })
})
