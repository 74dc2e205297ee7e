// docs/http-api.md against the routes that answer, docs/security-requirements.md against the tests that it names,
// docs/architecture.md against the files and the import rules, docs/quick-start.md against the examples, docs/decisions.md against
// its form and against the ids cited elsewhere.
import { execFileSync } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { basename, posix } from 'node:path'
import { expect } from 'chai'
import * as auth from '../../services/auth/routes/index.ts'
import * as business from '../../services/business/routes.ts'

function documented(heading: string): string[] {
  const [, section = ''] = readFileSync('docs/http-api.md', 'utf8').split(`## ${heading}`)
  const table = section.split('\n## ')[0] as string
  return [...table.matchAll(/^\| `([A-Z]+ \/\S*)`/gm)].map(([, route]) => route as string)
}

const pathsOf = (routes: Record<string, { path: string }>) => Object.values(routes).map(({ path }) => path)

/** `limits` names limits.test.ts in any folder; `contracts/userStore` names the file at that path. */
function fileNamed(name: string, files: string[]): string {
  const found = files.filter(file =>
    name.includes('/')
      ? file.endsWith(`/${name}.ts`) || file.endsWith(`/${name}.test.ts`)
      : basename(file) === `${name}.test.ts`,
  )
  if (found.length !== 1) throw new Error(`docs/security-requirements.md names ${name}, which matches: ${found}`)
  return found[0] as string
}

describe('the documents', () => {
  it('have no paragraph of more than six lines', () => {
    const isParagraph = (block: string) => /^[^|#<\s]/.test(block)
    for (const file of globSync(['*.md', 'docs/*.md'])) {
      const text = readFileSync(file, 'utf8').replace(/```.*?```/gs, '')
      for (const block of text.split(/\n\s*\n|\n(?=\s*[*-] |\d+\. )/).filter(isParagraph)) {
        expect(block.split('\n').length, `${file}: ${block.slice(0, 80)}`).to.be.at.most(6)
      }
    }
  })

  it('begin with a README of at most 150 lines', () => {
    expect(readFileSync('README.md', 'utf8').split('\n').length).to.be.at.most(151)
  })
})

describe('docs/http-api.md', () => {
  it('lists the routes of every listener and no others', () => {
    expect(documented('Business, public listener')).to.have.members(pathsOf(business.publicRoutes))
    expect(documented('Business, internal listener')).to.have.members(pathsOf(business.internalRoutes))
    expect(documented('Auth, public listener')).to.have.members(pathsOf(auth.publicRoutes))
    expect(documented('Auth, internal listener')).to.have.members(pathsOf(auth.internalRoutes))
  })
})

describe('docs/security-requirements.md', () => {
  it('names tests that exist', () => {
    const rows = readFileSync('docs/security-requirements.md', 'utf8').matchAll(/^\| [A-Z0-9]+-\d+:.* \| (.*) \|$/gm)
    const files = globSync('{tests,prove}/**/*.ts')
    const missing: string[] = []
    let named = 0
    for (const [, cell = ''] of rows) {
      let file = ''
      for (const [, name, title = ''] of cell.matchAll(/`([\w/]+)`(?=[:,])|“([^”]+)”/g)) {
        if (name !== undefined) file = fileNamed(name, files)
        else if (!readFileSync(file, 'utf8').includes(title)) missing.push(`${file}: ${title}`)
        else named++
      }
    }
    expect(missing).to.deep.equal([])
    expect(named).to.be.above(100)
  })
})

describe('docs/architecture.md', () => {
  const text = readFileSync('docs/architecture.md', 'utf8')

  it('names files and folders that exist', () => {
    const named = [...text.matchAll(/`((?:packages|services|shared|commands|tools|tests|prove)\/[\w/.-]*)`/g)]
    const missing = named.map(([, path]) => path as string).filter(path => !existsSync(path))
    expect(missing).to.deep.equal([])
    expect(named).to.have.length.above(50)
  })

  it('has every sentence of the import rules, and no other', () => {
    const rules = [...readFileSync('tests/architecture.test.ts', 'utf8').matchAll(/^ {4}sentence: '(.*)',$/gm)]
    const table = text.split('## Who may import whom')[1] as string
    const rows = [...table.matchAll(/^\| .* \| .* \| (.*) \|$/gm)].slice(1)
    expect(rows.map(([, sentence]) => sentence)).to.have.members(rules.map(([, sentence]) => sentence))
  })
})

describe('docs/quick-start.md', () => {
  it('shows the examples that other tests run, unchanged', () => {
    const text = readFileSync('docs/quick-start.md', 'utf8')
    const shown = [...text.matchAll(/\]\(([^)]+)\)[^\n]*:\n\n```\w+\n(.*?)^```$/gms)]
    for (const [, link = '', code] of shown) {
      const file = posix.join('docs', link)
      expect(code, file).to.equal(readFileSync(file, 'utf8'))
    }
    const nodeExamples = ['express', 'koa', 'fastify', 'hono', 'node'].map(name => `examples/${name}.ts`)
    const python = globSync('packages/client-python/examples/*.py').map(file => `../${file}`)
    expect(shown.map(([, link]) => link)).to.have.members([...nodeExamples, ...python, '../deploy/proxies/nginx.conf'])
  })
})

describe('docs/decisions.md', () => {
  const entries = readFileSync('docs/decisions.md', 'utf8').split(/^### /m).slice(1)
  const ids = entries.map(entry => /^D-\d{3}(?= )/.exec(entry)?.[0])

  it('gives each decision a unique id, a date and at most five lines', () => {
    expect(ids).to.not.include(undefined)
    expect(new Set(ids).size).to.equal(ids.length)
    for (const entry of entries) {
      const [title = '', text = ''] = entry.split('\n\n')
      expect(text, title).to.match(/^20\d\d-\d\d-\d\d\. /)
      expect(text.trim().split('\n').length, title).to.be.at.most(5)
    }
  })

  it('contains every id that another file cites', () => {
    const files = execFileSync('git', ['ls-files', '-z', '*.ts', '*.md'], { encoding: 'utf8' })
      .split('\0')
      .filter(existsSync)
    const cited = files.flatMap(file => [...readFileSync(file, 'utf8').matchAll(/\bD-\d{3}\b/g)].map(([id]) => id))
    expect(cited).to.include('D-023')
    expect(ids).to.include.members([...new Set(cited)])
  })
})
