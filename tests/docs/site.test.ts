// The documentation site, built as npm run docs:build builds it: its pages, links, anchors and search; and the links of the same
// Markdown files in the repository.
import { execFile, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { extname, join, posix } from 'node:path'
import { promisify } from 'node:util'
import { expect } from 'chai'
import type { Browser, Page } from 'playwright-core'
import { slugOf } from '../../docs/.vitepress/addresses.ts'
import { hasBrowser, openBrowser, reportMissingBrowser } from '../support/browser.ts'

/** The site is in a folder, as on GitHub Pages. */
const base = '/latchkey/'
const site = mkdtempSync(join(tmpdir(), 'latchkey-site-'))
const pages = () => globSync('**/*.html', { cwd: site }).filter(file => file !== '404.html')
const read = (page: string) => readFileSync(join(site, page), 'utf8')

/** What a page links or loads, without addresses that data: URLs hold. */
function addressesIn(html: string): string[] {
  const found = html.matchAll(/\s(?:href|src)="([^"]*)"/g)
  return [...found]
    .map(([, address]) => (address as string).replaceAll('&amp;', '&'))
    .filter(a => !a.startsWith('data:'))
}

/** The ids of a page, or the anchors that GitHub gives to a Markdown file. */
const idsIn = (text: string) => new Set([...text.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id as string))

function anchorsIn(markdown: string): Set<string> {
  const anchors = idsIn(markdown)
  for (const [, heading = ''] of markdown.replace(/```.*?```/gs, '').matchAll(/^#+ (.*)$/gm)) {
    const slug = slugOf(heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1'))
    for (let i = 0; ; i++) {
      const anchor = i === 0 ? slug : `${slug}-${i}`
      if (anchors.has(anchor)) continue
      anchors.add(anchor)
      break
    }
  }
  return anchors
}

describe('the documentation site', () => {
  let output: string

  before(async () => {
    const args = ['node_modules/vitepress/bin/vitepress.js', 'build', 'docs', '--outDir', site, '--base', base]
    const env = { ...process.env, NODE_ENV: 'production' }
    const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { env })
    output = stdout + stderr
  })
  after(() => rmSync(site, { recursive: true }))

  it('is built without a warning', () => {
    expect(output).to.include('build complete')
    expect(output).to.not.match(/warn|\(!\)/i)
  })

  it('has a page for each document, and each in the sidebar', () => {
    for (const file of globSync('docs/*.md')) expect(pages()).to.include(`${file.slice(5, -3)}.html`)
    const inSidebar = addressesIn(read('index.html')).map(address => address.slice(base.length))
    expect(inSidebar).to.include.members(pages())
  })

  it('links only pages, files and anchors that exist', () => {
    const broken: string[] = []
    const anchors = new Map(pages().map(page => [page, idsIn(read(page))]))
    for (const page of pages()) {
      for (const address of addressesIn(read(page))) {
        const { origin, pathname, hash } = new URL(address, `http://site${base}${page}`)
        if (origin !== 'http://site') continue
        const target = pathname === base ? 'index.html' : decodeURI(pathname.slice(base.length))
        const isFound = pathname.startsWith(base) && existsSync(join(site, target))
        const hasAnchor = hash === '' || anchors.get(target)?.has(decodeURIComponent(hash.slice(1)))
        if (!isFound || !hasAnchor) broken.push(`${page}: ${address}`)
      }
    }
    expect(broken).to.deep.equal([])
  })

  it('serves the files that pages link as text', () => {
    const file = 'docs/examples/express.ts'
    expect(read(`files/${file}.txt`)).to.equal(readFileSync(file, 'utf8'))
    expect(addressesIn(read('protect-your-service.html'))).to.include(`${base}files/${file}.txt`)
  })

  describe('in a browser', () => {
    let server: Server
    let browser: Browser
    let page: Page
    let url: string
    const problems: string[] = []

    before(async function () {
      if (!hasBrowser) {
        reportMissingBrowser('the documentation site in a browser')
        this.skip()
      }
      server = serveSite().listen(0, '127.0.0.1')
      await once(server, 'listening')
      url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      browser = await openBrowser()
      page = await browser.newPage()
      page.on('console', message => {
        if (['error', 'warning'].includes(message.type())) problems.push(message.text())
      })
      page.on('pageerror', error => problems.push(String(error)))
      page.on('request', request => {
        if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(url)) problems.push(request.url())
      })
    })
    after(async () => {
      await browser?.close()
      server?.close()
    })

    it('opens, finds a word and follows the result, with requests to its own host only', async () => {
      await page.goto(`${url}${base}`)
      await page.getByRole('button', { name: 'Search' }).first().click()
      await page.getByRole('searchbox').fill('revocation')
      await page.getByRole('option').first().click()
      await page.waitForURL(address => address.pathname !== base)
      await page
        .getByRole('main')
        .getByText(/revocation/i)
        .first()
        .waitFor()
      expect(problems).to.deep.equal([])
    })

    it('shows every page without an error or a request to another host', async () => {
      for (const path of pages()) {
        await page.goto(`${url}${base}${path}`, { waitUntil: 'load' })
        expect(await page.locator('h1').count(), path).to.equal(1)
      }
      expect(problems).to.deep.equal([])
    })
  })
})

describe('the links between the documents', () => {
  it('lead to files and anchors that exist in the repository', () => {
    const files = execFileSync('git', ['ls-files', '-z', '*.md'], { encoding: 'utf8' }).split('\0').filter(existsSync)
    const broken: string[] = []
    for (const file of files) {
      const text = readFileSync(file, 'utf8').replace(/```.*?```/gs, '')
      for (const [, address = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/i.test(address)) continue
        const [path = '', hash] = address.split('#')
        const target = path === '' ? file : posix.join(posix.dirname(file), decodeURI(path))
        const isFound = existsSync(target)
        const hasAnchor = hash === undefined || (isFound && anchorsIn(readFileSync(target, 'utf8')).has(hash))
        if (!isFound || !hasAnchor) broken.push(`${file}: ${address}`)
      }
    }
    expect(broken).to.deep.equal([])
  })
})

function serveSite(): Server {
  const types: Record<string, string> = {
    '.html': 'text/html',
    '.js': 'text/javascript',
    '.css': 'text/css',
    '.svg': 'image/svg+xml',
  }
  return createServer((req, res) => {
    const path = decodeURI(new URL(req.url ?? '', 'http://site').pathname)
    const file = join(site, path.slice(base.length) || 'index.html')
    if (!path.startsWith(base) || !statSync(file, { throwIfNoEntry: false })?.isFile()) return res.writeHead(404).end()
    return res.writeHead(200, { 'Content-Type': types[extname(file)] ?? 'text/plain' }).end(readFileSync(file))
  })
}
