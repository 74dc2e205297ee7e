// How the pages of /console and their files are served.
import { expect } from 'chai'
import { ask } from '../../support/client.ts'
import { demo } from '../../support/credentials.ts'
import { closeServers, startAuth } from '../../support/servers.ts'

describe('the pages of the console', () => {
  after(closeServers)

  it('load only their own files, under a policy that allows no others', async () => {
    const { url, internalUrl } = await startAuth({ env: { CONSOLE_BUSINESS_URL: 'https://api.example.com/v1' } })
    for (const [base, connections] of [
      [url, "'self' https://api.example.com"],
      [internalUrl, "'self'"],
    ] as const) {
      const answer = await fetch(`${base}/console`)
      expect(answer.headers.get('content-type')).to.equal('text/html; charset=utf-8')
      expect(answer.headers.get('cache-control')).to.equal('no-cache')
      expect(answer.headers.get('x-content-type-options')).to.equal('nosniff')
      expect(answer.headers.get('content-security-policy')).to.equal(
        `default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src ${connections}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
      )
      const html = await answer.text()
      expect(() => JSON.parse(html)).to.throw()
      expect(html).to.not.match(/<script>|<style>|\sstyle=|\son\w+=|https?:/)
      const seen = new Set<string>()
      const load = async (path: string): Promise<void> => {
        if (seen.has(path)) return
        seen.add(path)
        const file = await fetch(`${base}/${path}`)
        const text = await file.text()
        expect([file.status, file.headers.get('x-content-type-options')], path).to.deep.equal([200, 'nosniff'])
        const type = path.endsWith('.css') ? 'text/css' : path.endsWith('.svg') ? 'image/svg+xml' : 'text/javascript'
        expect(file.headers.get('content-type')).to.equal(`${type}; charset=utf-8`)
        for (const [, name] of text.matchAll(/^\s*(?:import|export)\b[^'"\n]*?from '([^']+)'/gm)) {
          expect(name, path).to.match(/^\.\/\w+\.(js|ts)$/)
          await load(`console/${name?.slice(2)}`)
        }
      }
      for (const [, path = ''] of html.matchAll(/(?:src|href)="([^"]+)"/g)) await load(path)
      expect(seen.size).to.be.above(8)
    }
  })

  it('are served without any other file of the repository', async () => {
    const { url } = await startAuth()
    for (const file of ['tsconfig.json', 'console.html', 'preact.d.ts', '..%2fapp.ts', '__proto__', 'package.json']) {
      expect((await fetch(`${url}/console/${file}`)).status, file).to.equal(404)
    }
  })

  it('receive the address of Business, and in production no password', async () => {
    const production = {
      NODE_ENV: 'production',
      DEMO_USERNAME: 'me@example.com',
      DEMO_PASSWORD: 'long enough to be mine',
    }
    for (const [env, expected] of [
      [{}, { businessUrl: null, shownDemoUser: demo, isRegistrationSimple: true, ttlMs: 30_000 }],
      [{ CONSOLE_BUSINESS_URL: 'self' }, { businessUrl: '' }],
      [production, { shownDemoUser: null, isRegistrationSimple: false }],
    ] as const) {
      const { url } = await startAuth({ env, now: () => 1_800_000_000_000 })
      const { body } = await ask('GET', `${url}/console/settings.json`)
      expect(body).to.deep.include({ ...expected, now: 1_800_000_000_000 })
    }
  })
})
