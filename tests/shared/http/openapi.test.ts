// The OpenAPI documents of both services, and the pages that show them. tests/support/conformance.ts checks every
// answer against them.
import { Ajv2020 } from 'ajv/dist/2020.js'
import { expect } from 'chai'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import * as authRoutes from '../../../services/auth/routes/index.ts'
import * as businessRoutes from '../../../services/business/routes.ts'
import { hasBrowser, openBrowser, reportMissingBrowser } from '../../support/browser.ts'
import { adminKey } from '../../support/credentials.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'

const anyMethod = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE']

const routeLists = {
  auth: [authRoutes.publicRoutes, authRoutes.internalRoutes],
  business: [businessRoutes.publicRoutes, businessRoutes.internalRoutes],
} as const

/** `METHOD /path` of each listener, the public one first. */
function routesOf(service: 'auth' | 'business'): string[][] {
  return routeLists[service].map(routes =>
    Object.values(routes).flatMap(({ path: route }) => {
      const [method, path] = route.split(' ') as [string, string]
      return (method === 'ANY' ? anyMethod : [method]).map(name => `${name} ${path.replace(/\{\*(\w+)\}/, ':$1')}`)
    }),
  )
}

interface Operation {
  operationId: string
  summary: string
  description: string
  tags: string[]
  security: Record<string, string[]>[]
  parameters?: { name: string; in: string }[]
  requestBody?: { content: Record<string, { schema: object }> }
  responses: Record<string, object>
}

interface Document {
  info: object
  servers: { url: string }[]
  tags: { name: string; description: string }[]
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, object>; securitySchemes: Record<string, object> }
}

const operationsOf = ({ paths }: Document) =>
  Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map(method => `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ':$1')}`),
  )

describe('the OpenAPI documents', () => {
  let auth: Awaited<ReturnType<typeof startAuth>>
  let business: Awaited<ReturnType<typeof startBusiness>>
  const documents: Record<string, Document> = {}

  before(async () => {
    auth = await startAuth({ env: { CONSOLE_BUSINESS_URL: 'http://localhost:3000' } })
    business = await startBusiness(auth.internalUrl)
    for (const [name, { url, internalUrl }] of Object.entries({ auth, business })) {
      documents[name] = (await (await fetch(`${url}/openapi.json`)).json()) as Document
      documents[`${name}Internal`] = (await (await fetch(`${internalUrl}/openapi.json`)).json()) as Document
    }
  })
  after(closeServers)

  for (const service of ['auth', 'business'] as const) {
    for (const [i, listener] of ['', 'Internal'].entries()) {
      it(`describe every route of the listener ${service}${listener} and no other`, () => {
        const expected = [...new Set(routesOf(service)[i])]
        expect(expected).to.have.length.above(2)
        expect(operationsOf(documents[`${service}${listener}`] as Document)).to.have.members(expected)
      })
    }
  }

  it('name each operation after the definition of its route, so that generated clients have methods such as createKey', () => {
    const idOf = (document: string, path: string, method: string) =>
      documents[document]?.paths[path]?.[method]?.operationId
    expect(idOf('auth', '/login', 'post')).to.equal('login')
    expect(idOf('auth', '/keys/{id}', 'delete')).to.equal('deleteKey')
    expect(idOf('authInternal', '/forwardAuth', 'get')).to.equal('forwardAuthGet')
    expect(idOf('business', '/data', 'get')).to.equal('getData')
  })

  it('reveal nothing of the internal listeners in public', () => {
    const both = [
      '/',
      '/health',
      '/ready',
      '/openapi.json',
      '/docs',
      '/docs/:file',
      '/console',
      '/console/:file',
      '/keys',
      '/keys/:id',
      '/keys/:id/usage',
      '/problems/:code',
    ]
    for (const service of ['auth', 'business'] as const) {
      const text = JSON.stringify(documents[service])
      const internalOnly = (routesOf(service)[1] as string[])
        .map(route => route.split(' ')[1] as string)
        .filter(path => !both.includes(path))
      expect(internalOnly).to.include('/metrics')
      for (const path of internalOnly) expect(text).to.not.include(`"${path.replace(/:(\w+)/, '{$1}')}"`)
      expect(text).to.not.match(/internal listener|SERVICE_KEY|ADMIN_KEY|127\.0\.0\.1|localhost/i)
    }
    expect(Object.keys(documents['auth']?.components.securitySchemes ?? {})).to.have.members(['bearer', 'tokenHeader'])
  })

  it('are off in public with API_DOCS=off, with their pages and links, and stay on the internal listeners', async () => {
    const env = { API_DOCS: 'off' }
    const quietAuth = await startAuth({ env })
    const quietBusiness = await startBusiness(quietAuth.internalUrl, env)
    for (const path of ['/openapi.json', '/docs', '/docs/openapi.json', '/docs/swagger-ui.css', '/redoc']) {
      expect((await fetch(quietAuth.url + path)).status, path).to.equal(404)
    }
    expect((await fetch(`${quietBusiness.url}/openapi.json`)).status).to.equal(404)
    for (const { internalUrl } of [quietAuth, quietBusiness]) {
      expect((await fetch(`${internalUrl}/openapi.json`)).status).to.equal(200)
    }
    expect((await fetch(`${quietAuth.internalUrl}/docs`)).status).to.equal(200)
    for (const [url, hasApiDocs] of [
      [quietAuth.url, false],
      [auth.url, true],
    ] as const) {
      expect(await (await fetch(`${url}/console/settings.json`)).json()).to.include({ hasApiDocs })
    }
  })

  it('have schemas that a validator accepts', () => {
    for (const [name, document] of Object.entries(documents)) {
      const ajv = new Ajv2020({ strict: false })
      ajv.addSchema(document, 'document')
      const schemas = [...JSON.stringify(document).matchAll(/"schema":\{/g)]
      expect(schemas, name).to.have.length.above(5)
      for (const methods of Object.values(document.paths)) {
        for (const operation of Object.values(methods)) {
          for (const { schema } of Object.values(operation.requestBody?.content ?? {})) ajv.compile(schema)
        }
      }
    }
  })

  it('describe exactly the requests that the route accepts', async () => {
    const schema = documents['auth']?.paths['/login']?.['post']?.requestBody?.content['application/json']?.schema
    const validate = new Ajv2020({ strict: false }).compile(schema as object)
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

  it('are shown by pages that load nothing from elsewhere, under a policy that forbids it', async () => {
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

  it('are the same at /docs/openapi.json, which the pages find behind any proxy, with the same address', async () => {
    for (const url of [auth.url, auth.internalUrl]) {
      const read = async (path: string): Promise<Document> => {
        const document = (await (await fetch(url + path)).json()) as Document
        // OpenAPI 3.1.1, section 4.6
        for (const server of document.servers) server.url = new URL(server.url, url + path).href
        return document
      }
      const document = await read('/openapi.json')
      expect(document.servers.map(server => server.url)).to.deep.equal([`${url}/`])
      expect(await read('/docs/openapi.json')).to.deep.equal(document)
    }
  })

  it('are served without any other file of the packages', async () => {
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
  let internalOrigin: string
  let messages: string[]
  let requested: string[]

  before(async function () {
    if (!hasBrowser) {
      reportMissingBrowser('/docs and /redoc in a browser')
      this.skip()
    }
    ;({ url: origin, internalUrl: internalOrigin } = await startAuth())
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
      // The policy must block this request, which is for the logo of ReDoc's makers.
      if (request.failure()?.errorText === 'csp') requested = requested.filter(url => url !== request.url())
    })
    page.setDefaultTimeout(30_000)
  })
  afterEach(async () => {
    await context?.close()
    // Browsers ask for the icon by themselves.
    const unexpected = messages.filter(text => !/\/favicon\.ico:|cdn\.redoc\.ly.* violates .*"img-src /.test(text))
    expect(unexpected, 'on the console of the browser').to.deep.equal([])
    const own = [origin, internalOrigin]
    const outside = requested.filter(url => !/^(data|blob):/.test(url) && !own.includes(new URL(url).origin))
    expect(outside, 'requests to others').to.deep.equal([])
  })

  it('can call a route on the same listener', async () => {
    await page.goto(`${origin}/docs`)
    const health = page.locator('.opblock', { has: page.locator('[data-path="/health"]') }).first()
    await health.locator('.opblock-summary-control').click()
    await health.getByRole('button', { name: 'Try it out' }).click()
    await health.getByRole('button', { name: 'Execute' }).click()
    await health.locator('.live-responses-table .response-col_status').getByText('200').waitFor()
    expect(requested.at(-1)).to.equal(`${origin}/health`)
    expect(await page.evaluate('getComputedStyle(document.body).margin')).to.equal('0px')
  })

  it('show an operator the internal routes, and can call one with the key that was entered', async () => {
    await page.goto(`${internalOrigin}/console`)
    await page.getByRole('link', { name: 'API' }).click()
    await page.getByRole('heading', { name: /Latchkey Auth, internal listener/ }).waitFor()
    await page.getByRole('button', { name: 'Authorize' }).first().click()
    const lock = page.locator('.auth-container', { has: page.getByText('adminKey') })
    await lock.locator('input').fill(adminKey)
    await lock.getByRole('button', { name: 'Apply credentials' }).click()
    await lock.getByRole('button', { name: 'Close' }).click()
    const users = page.locator('.opblock', { has: page.locator('[data-path="/admin/users"]') }).first()
    await users.locator('.opblock-summary-control').click()
    await users.getByRole('button', { name: 'Try it out' }).click()
    await users.getByRole('button', { name: 'Execute' }).click()
    await users.locator('.live-responses-table .response-col_status').getByText('200').waitFor()
    expect(requested.every(url => /^(data|blob):/.test(url) || url.startsWith(internalOrigin))).to.equal(true)
  })

  it('render the description', async () => {
    await page.goto(`${origin}/redoc`)
    await page.getByRole('heading', { name: 'Latchkey Auth' }).waitFor()
    await page.getByText('/password/forgot').first().waitFor()
  })
})
