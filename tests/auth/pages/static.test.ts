// Static files, requested by a browser, by a proxy, and by a client that never reads the response.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import { expect } from 'chai'
import { request } from 'undici'
import { adminKey } from '../../support/credentials.ts'
import { endProcesses, residentBytes, startProcess } from '../../support/processes.ts'
import { closeServers, startAuth } from '../../support/servers.ts'

const bundle = '/docs/swagger-ui-bundle.js'
const pages = ['/docs', '/redoc', '/console', '/account']
const assets = [
  bundle,
  '/docs/swagger-ui.css',
  '/docs/redoc.standalone.js',
  '/docs/documents.js',
  '/docs/docs.ts',
  '/console/clock.ts',
]

describe('a static file', () => {
  let url: string

  before(async () => {
    url = (await startAuth({ env: { CONSOLE_BUSINESS_URL: 'http://localhost:3000' } })).url
  })
  after(closeServers)

  /** The bytes on the wire; fetch would decompress them. */
  async function get(path: string, headers: Record<string, string> = {}, method: 'GET' | 'HEAD' = 'GET') {
    const answer = await request(`${url}${path}`, { method, headers })
    return { ...answer, bytes: Buffer.from(await answer.body.arrayBuffer()) }
  }

  for (const path of [...pages, ...assets]) {
    it(`${path} has the same content in brotli, gzip and uncompressed, each with its own length and ETag`, async () => {
      const [plain, brotli, gzip] = [
        await get(path),
        await get(path, { 'accept-encoding': 'br' }),
        await get(path, { 'accept-encoding': 'gzip' }),
      ]
      for (const { statusCode, headers, bytes } of [plain, brotli, gzip]) {
        expect(statusCode).to.equal(200)
        expect(Number(headers['content-length'])).to.equal(bytes.length)
        expect(headers['vary']).to.equal('Accept-Encoding')
        expect(headers['cache-control']).to.equal('no-cache')
        expect(headers['etag']).to.match(/^"[\w-]+"$/) // strong
        expect(headers['content-type']).to.equal(plain.headers['content-type'])
      }
      expect(plain.headers['content-encoding']).to.equal(undefined)
      if (plain.bytes.length < 500) return // too short to compress
      expect(brotli.headers['content-encoding']).to.equal('br')
      expect(brotliDecompressSync(brotli.bytes).equals(plain.bytes)).to.equal(true)
      expect(gzip.headers['content-encoding']).to.equal('gzip')
      expect(gunzipSync(gzip.bytes).equals(plain.bytes)).to.equal(true)
      expect(new Set([plain, brotli, gzip].map(({ headers }) => headers['etag'])).size).to.equal(3)
    })

    it(`${path} is not sent again to a client that has it already`, async () => {
      const first = await get(path, { 'accept-encoding': 'br' })
      const etag = first.headers['etag'] as string
      for (const known of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
        const { statusCode, headers, bytes } = await get(path, { 'accept-encoding': 'br', 'if-none-match': known })
        expect([statusCode, bytes.length], known).to.deep.equal([304, 0])
        for (const name of ['etag', 'vary', 'cache-control', 'content-security-policy']) {
          expect(headers[name], name).to.equal(first.headers[name])
        }
        for (const name of ['content-length', 'content-encoding']) expect(headers[name], name).to.equal(undefined)
      }
      for (const other of ['"other"', etag.replace('"', '')]) {
        expect((await get(path, { 'accept-encoding': 'br', 'if-none-match': other })).statusCode).to.equal(200)
      }
      expect((await get(path, { 'accept-encoding': 'br', 'cache-control': 'no-cache' })).statusCode).to.equal(200)
    })

    it(`${path} answers HEAD with the headers of GET and no body`, async () => {
      for (const encoding of ['br', 'identity']) {
        const [full, head] = [
          await get(path, { 'accept-encoding': encoding }),
          await get(path, { 'accept-encoding': encoding }, 'HEAD'),
        ]
        const shown = ({
          headers: { date, 'x-request-id': id, connection, 'keep-alive': left, ...rest },
        }: typeof full) => rest
        expect([head.statusCode, head.bytes.length]).to.deep.equal([200, 0])
        expect(shown(head)).to.deep.equal(shown(full))
      }
    })
  }

  for (const [accepted, encoding] of [
    ['gzip, deflate, br, zstd', 'br'],
    ['GZIP', 'gzip'],
    ['br;q=0, gzip;q=0.5', 'gzip'],
    ['*', 'br'],
    ['*;q=0', undefined],
    ['deflate, zstd', undefined],
    ['identity', undefined],
    ['', undefined],
    ['br;q=nonsense, ;;', undefined],
  ] as const) {
    it(`is sent ${encoding === undefined ? 'uncompressed' : `as ${encoding}`} if Accept-Encoding is "${accepted}"`, async () => {
      const { statusCode, headers } = await get(bundle, { 'accept-encoding': accepted })
      expect([statusCode, headers['content-encoding']]).to.deep.equal([200, encoding])
    })
  }

  it('has its own documents.js and policy in each deployment', async () => {
    const other = await startAuth({ env: { CONSOLE_BUSINESS_URL: 'https://api.example.com' } })
    const [mine, theirs] = [await get('/docs/documents.js'), await request(`${other.url}/docs/documents.js`)]
    expect(await theirs.body.text()).to.include('https://api.example.com')
    expect(theirs.headers['etag']).to.not.equal(mine.headers['etag'])
    // The page is the same in both deployments, but a 304 carries the current policy.
    const page = await get('/docs')
    const headers = { 'if-none-match': page.headers['etag'] as string }
    const again = await request(`${other.url}/docs`, { headers })
    expect(again.statusCode).to.equal(304)
    expect(again.headers['content-security-policy']).to.include("connect-src 'self' https://api.example.com;")
  })

  it('arrives complete when many clients request it at once', async () => {
    const whole = await get(bundle)
    const all = await Promise.all(Array.from({ length: 20 }, () => get(bundle)))
    expect(all.every(({ bytes }) => bytes.equals(whole.bytes))).to.equal(true)
  })
})

describe('a module of a page', () => {
  after(closeServers)

  it('is served as JavaScript with the lines and columns of the source, and Node prints no warning', async () => {
    const warnings: Error[] = []
    const note = (warning: Error) => warnings.push(warning)
    process.on('warning', note)
    const { url } = await startAuth()
    const answer = await request(`${url}/console/clock.ts`)
    process.off('warning', note)
    expect(warnings).to.deep.equal([])
    expect(answer.headers['content-type']).to.equal('text/javascript; charset=utf-8')
    const [served, source] = [await answer.body.text(), readFileSync('services/auth/pages/console/clock.ts', 'utf8')]
    expect(served).to.include('export function now()         {')
    expect(served.length).to.equal(source.length)
  })

  it('imports packages from the files that are served beside it', async () => {
    const { url } = await startAuth()
    const hooks = await request(`${url}/console/hooks.js`)
    expect(await hooks.body.text()).to.include('from"./preact.js"')
    const preact = await request(`${url}/console/preact.js`)
    expect(preact.statusCode).to.equal(200)
    await preact.body.dump()
  })
})

describe('clients that never read a static file', () => {
  const sockets: Socket[] = []

  after(async () => {
    for (const socket of sockets) socket.destroy()
    await endProcesses()
  })

  it('share one copy of it, and Auth keeps working with a heap of 400 MB', async () => {
    const env = { NODE_OPTIONS: '--max-old-space-size=400', ADMIN_KEY: adminKey }
    const { child, addresses } = await startProcess('auth', { env })
    const url = addresses['auth'] as string
    const wanted = `GET ${bundle} HTTP/1.1\r\nHost: a\r\n\r\n`
    // Node's own fetch throws if the server closes while a large body waits to be read.
    const read = async (path: string) => {
      const { statusCode, body } = await request(`${url}${path}`, { reset: true })
      return { statusCode, length: (await body.arrayBuffer()).byteLength }
    }
    const before = residentBytes(child)
    for (let i = 0; i < 40; i++) {
      const { hostname, port } = new URL(url)
      const socket = connect({ host: hostname, port: Number(port) }).on('error', () => {})
      sockets.push(socket)
      await once(socket, 'connect')
      socket.pause().write(wanted.repeat(16))
    }
    // Readers take turns: once these files have been read, every other reader has had as many turns.
    for (let i = 0; i < 5; i++) {
      expect((await read('/health')).statusCode).to.equal(200)
      expect((await read(bundle)).length).to.be.above(1_000_000)
    }
    expect(child.exitCode).to.equal(null)
    expect((residentBytes(child) - before) / 1e6, 'MB more').to.be.below(150)
  })
})
