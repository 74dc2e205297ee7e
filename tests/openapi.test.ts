// The documents of both services, and the pages that show them. That every answer is as they say: tests/support/conformance.ts.
import { readFileSync } from 'node:fs'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { expect } from 'chai'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { hasBrowser, openBrowser, tellThatBrowserIsMissing } from './support/browser.ts'
import { closeServers, startAuth, startBusiness } from './support/servers.ts'

const anyMethod = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE']

/** `METHOD /path` -> is it there, from the source: the visible list of routes. */
function routesOf(service: string): string[] {
  const source = readFileSync(`services/${service}/app.ts`, 'utf8')
  const routes = [...source.matchAll(/'(GET|POST|PUT|PATCH|DELETE|ANY) (\/[\w/:.{*}-]*)': \[/g)]
  return routes.flatMap(([, method = '', path = '']) =>
    (method === 'ANY' ? anyMethod : [method]).map(name => `${name} ${path.replace(/\{\*(\w+)\}/, ':$1')}`),
  )
}

describe('the OpenAPI documents', () => {
  let auth: Awaited<ReturnType<typeof startAuth>>
  let business: Awaited<ReturnType<typeof startBusiness>>
  const documents: Record<string, { paths: Record<string, Record<string, unknown>> }> = {}

  before(async () => {
    auth = await startAuth({ env: { CONSOLE_BUSINESS_URL: 'http://localhost:3000' } })
    business = await startBusiness(auth.internalUrl)
    for (const [name, { url }] of Object.entries({ auth, business })) {
      const answer = await fetch(`${url}/openapi.json`)
      documents[name] = (await answer.json()) as (typeof documents)[string]
    }
  })
  after(closeServers)

  for (const service of ['auth', 'business']) {
    it(`describe every route of ${service} and no other`, () => {
      const described = Object.entries(documents[service]?.paths ?? {}).flatMap(([path, methods]) =>
        Object.keys(methods)
          .filter(name => name !== 'servers')
          .map(method => `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ':$1')}`),
      )
      expect(described).to.have.members([...new Set(routesOf(service))])
    })
  }

  it('have schemas that a validator takes', () => {
    for (const document of Object.values(documents)) {
      const ajv = new Ajv2020({ strict: false })
      ajv.addSchema(document, 'document')
      const schemas = [...JSON.stringify(document).matchAll(/"schema":\{/g)]
      expect(schemas).to.have.length.above(10)
      for (const methods of Object.values(document.paths)) {
        for (const operation of Object.values(methods) as {
          requestBody?: { content: Record<string, { schema: object }> }
        }[]) {
          for (const { schema } of Object.values(operation.requestBody?.content ?? {})) ajv.compile(schema)
        }
      }
    }
  })

  it('say of a request what the route refuses', async () => {
    const body = documents['auth']?.paths['/login']?.['post'] as {
      requestBody: { content: { 'application/json': { schema: object } } }
    }
    const validate = new Ajv2020({ strict: false }).compile(body.requestBody.content['application/json'].schema)
    const ask = (body: object) =>
      fetch(`${auth.url}/login`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
    const credentials = { username: 'a', password: 'b' }
    for (const [value, isGood] of [
      [credentials, true],
      [{ ...credentials, more: 1 }, false],
      [{ username: 'a' }, false],
      [{ ...credentials, password: 5 }, false],
      [{ ...credentials, username: '' }, false],
    ] as const) {
      expect(validate(value), JSON.stringify(value)).to.equal(isGood)
      expect((await ask(value)).status !== 400, JSON.stringify(value)).to.equal(isGood)
    }
  })

  it('are shown by pages that load nothing from anywhere else, under a policy that would not let them', async () => {
    for (const page of ['/docs', '/redoc']) {
      const answer = await fetch(`${auth.url}${page}`)
      const policy = answer.headers.get('content-security-policy')
      expect(policy)
        .to.include("default-src 'none'")
        .and.to.include("script-src 'self'")
        .and.to.include("frame-ancestors 'none'")
      expect(policy).to.include("connect-src 'self' http://localhost:3000;")
      const html = await answer.text()
      const loaded = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path]) => path as string)
      expect(loaded).to.have.length.above(2)
      for (const path of loaded) {
        expect(path).to.match(/^docs\/[\w.-]+$/)
        const asset = await fetch(`${auth.url}/${path}`)
        expect(asset.status, path).to.equal(200)
        expect(asset.headers.get('content-type')).to.match(path.endsWith('.css') ? /^text\/css/ : /^text\/javascript/)
        expect((await asset.text()).length).to.be.above(50)
      }
      expect(html).to.not.match(/<script>|<style>|https?:/)
    }
  })

  it('are the same at /docs/openapi.json, where the pages find it behind any proxy, and name the same addresses', async () => {
    type Document = { paths: Record<string, { servers: { url: string }[] }> }
    const withAddresses = async (url: string): Promise<Document> => {
      const document = (await (await fetch(url)).json()) as Document
      for (const { servers } of Object.values(document.paths)) {
        for (const server of servers) server.url = new URL(server.url, url).href // OpenAPI 3.1.1, section 4.6
      }
      return document
    }
    for (const at of ['', '/docs']) {
      const { paths } = await withAddresses(`${auth.url}${at}/openapi.json`)
      expect(paths['/login']?.servers.map(({ url }) => url)).to.deep.equal([`${auth.url}/`])
    }
    expect(await withAddresses(`${auth.url}/docs/openapi.json`)).to.deep.equal(
      await withAddresses(`${auth.url}/openapi.json`),
    )
  })

  it('are served with no other file of the packages', async () => {
    for (const file of ['package.json', '..%2fpackage.json', 'swagger-ui.js.map', '__proto__', 'constructor', '%00']) {
      expect((await fetch(`${auth.url}/docs/${file}`)).status, file).to.equal(404)
    }
  })
})

describe('the pages that show the OpenAPI documents, in a browser', () => {
  let browser: Browser
  let context: BrowserContext
  let page: Page
  let origin: string
  let messages: string[]
  let requested: string[]

  before(async function () {
    if (!hasBrowser) {
      tellThatBrowserIsMissing('/docs and /redoc in a browser')
      this.skip()
    }
    ;({ url: origin } = await startAuth())
    browser = await openBrowser()
  })
  after(async () => {
    await browser?.close()
    await closeServers()
  })

  beforeEach(async () => {
    messages = []
    requested = []
    context = await browser.newContext()
    page = await context.newPage()
    page.on('console', message => {
      if (message.type() === 'error') messages.push(`${message.location().url}: ${message.text()}`)
    })
    page.on('pageerror', error => messages.push(error.message))
    page.on('request', request => requested.push(request.url()))
    page.on('requestfailed', request => {
      // It never left: the logo of ReDoc's makers is what the policy is to keep away.
      if (request.failure()?.errorText === 'csp') requested = requested.filter(url => url !== request.url())
    })
    page.setDefaultTimeout(30_000)
  })
  afterEach(async () => {
    await context?.close()
    // Browsers ask for the icon by themselves.
    const unexpected = messages.filter(text => !/\/favicon\.ico:|cdn\.redoc\.ly.* violates .*"img-src /.test(text))
    expect(unexpected, 'on the console of the browser').to.deep.equal([])
    const outside = requested.filter(url => !/^(data|blob):/.test(url) && new URL(url).origin !== origin)
    expect(outside, 'requests to others').to.deep.equal([])
  })

  it('try a route out where it is', async () => {
    await page.goto(`${origin}/docs`)
    const health = page.locator('.opblock', { has: page.locator('[data-path="/health"]') }).first()
    await health.locator('.opblock-summary-control').click()
    await health.getByRole('button', { name: 'Try it out' }).click()
    await health.getByRole('button', { name: 'Execute' }).click()
    await health.locator('.live-responses-table .response-col_status').getByText('200').waitFor()
    expect(requested.at(-1)).to.equal(`${origin}/health`)
  })

  it('render the description for reading', async () => {
    await page.goto(`${origin}/redoc`)
    await page.getByRole('heading', { name: 'Latchkey Auth' }).waitFor()
    await page.getByText('/password/forgot').first().waitFor()
  })
})
