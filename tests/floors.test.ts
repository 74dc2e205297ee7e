// The packages of the lock file, and the Node.js that commands/runtime.sh fetches, are not older than the versions that
// fix known vulnerabilities.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { safeNodeVersions, warningAboutNode } from '../commands/start/nodeVersion.ts'

// Minimum version per release line, from the advisories published up to 20 November 2026. A line that is not listed is
// refused, because it was not reviewed.
const floors: Record<string, string[]> = {
  node: Object.values(safeNodeVersions), // CVE-2026-126051
  koa: ['3.1.2'], // CVE-2026-27959
  'path-to-regexp': ['8.4.0'], // CVE-2026-4926, CVE-2026-4923
  qs: ['6.14.2'], // CVE-2025-15284, CVE-2026-2391
  undici: ['8.9.0', '7.29.0', '6.28.0'], // GHSA-4cwx-7wf7-3272
  bcryptjs: ['3.0.2'],
  winston: ['3.17.0'],
  'koa-bodyparser': ['4.4.1'],
  '@koa/router': ['15.0.0'],
  '@redis/client': ['6.0.0'],
  pg: ['8.0.0'],
  jose: ['6.0.0', '4.15.5'], // CVE-2024-28176
  nodemailer: ['10.4.1'], // CVE-2026-125755
  'winston-daily-rotate-file': ['5.0.0'],
  moment: ['2.29.4'], // CVE-2022-24785, CVE-2022-31129
  '@koa/cors': ['5.0.0'], // CVE-2023-49803
}

// Exactly these versions must be below their floors, so that an exception that is no longer needed fails the test.
const exceptions: string[] = []

interface Package {
  version: string
  hasInstallScript?: boolean
  dev?: boolean
  resolved?: string
  integrity?: string
  optionalDependencies?: Record<string, string>
}

const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Record<string, Package> }
const packages = Object.entries(lock.packages).filter(([path]) => path !== '')
const runtime = readFileSync('commands/runtime.sh', 'utf8')
const pinnedNode = /^pinned_version=(\S+)$/m.exec(runtime)?.[1] ?? ''
const nameOf = (path: string) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)

function isAtLeast(version: string, floor: string): boolean {
  const [a, b] = [version, floor].map(text => text.split(/[.-]/).slice(0, 3).map(Number)) as [number[], number[]]
  for (let i = 0; i < 3; i++) if (a[i] !== b[i]) return Number(a[i]) > Number(b[i])
  return true
}

function isSafe(version: string, lines: string[]): boolean {
  return lines.some(floor => floor.split('.')[0] === version.split('.')[0] && isAtLeast(version, floor))
}

describe('the lock file', () => {
  it('has no package below its floor except the listed ones', () => {
    const below = packages
      .filter(([path, { version }]) => !isSafe(version, floors[nameOf(path)] ?? [version]))
      .map(([path, { version }]) => `${path} ${version}`)
    if (!isSafe(pinnedNode, floors['node'] as string[])) below.push(`commands/runtime.sh: node ${pinnedNode}`)
    expect(below).to.deep.equal(exceptions)
  })

  it('has no package with an install script that is not switched off', () => {
    const { allowScripts = {} } = JSON.parse(readFileSync('package.json', 'utf8')) as {
      allowScripts?: Record<string, boolean>
    }
    const running = packages.filter(([, { hasInstallScript }]) => hasInstallScript).map(([path]) => nameOf(path))
    expect(running.filter(name => allowScripts[name] !== false)).to.deep.equal([])
    expect(Object.values(allowScripts)).to.not.include(true)
  })

  it('contains every package of the table', () => {
    const held = new Set([...packages.map(([path]) => nameOf(path)), 'node'])
    expect(Object.keys(floors).filter(name => !held.has(name))).to.deep.equal([])
  })

  it('would be refused with a lower version', () => {
    expect(isSafe('8.8.9', floors['undici'] as string[])).to.equal(false)
    expect(isSafe('7.29.0', floors['undici'] as string[])).to.equal(true)
    expect(isSafe('9.0.0', floors['undici'] as string[])).to.equal(false)
  })

  it('contains the packages of every platform, which npm ci requires', () => {
    const held = new Set(packages.map(([path]) => nameOf(path)))
    const wanted = packages.flatMap(([, { optionalDependencies = {} }]) => Object.keys(optionalDependencies))
    expect(wanted.filter(name => !held.has(name))).to.deep.equal([])
  })

  it('pins every package by its hash', () => {
    expect(packages.filter(([, { integrity }]) => !integrity).map(([path]) => path)).to.deep.equal([])
  })
})

describe('Swagger UI in the repository', () => {
  it('is that of the development package, which Renovate updates; after an update, copy its files', () => {
    const folder = 'services/auth/pages/docs/swagger'
    const files = readdirSync(folder)
    expect(files).to.include('swagger-ui-bundle.js')
    const differing = files.filter(
      file => !readFileSync(join(folder, file)).equals(readFileSync(join('node_modules/swagger-ui-dist', file))),
    )
    expect(differing).to.deep.equal([])
  })
})

describe('the Node.js that runs ./startServer', () => {
  const own = '/usr/bin/node'

  for (const [version, newer] of [
    ['22.19.0', '22.23.5'],
    ['24.21.0', '24.22.3'],
    ['26.13.0', '26.13.1'],
  ] as const) {
    it(`causes a warning as ${version}, with what to install`, () => {
      const warning = `Warning: Node.js ${version} has known security holes. Update it to ${newer} or newer: https://nodejs.org`
      expect(warningAboutNode(version, own)).to.equal(warning)
    })
  }

  it('has the same version for version managers as for commands/runtime.sh', () => {
    expect(readFileSync('.node-version', 'utf8')).to.equal(`${pinnedNode}\n`)
  })

  it('causes no warning if it is new, of another line, or not the user’s own', () => {
    for (const version of ['22.23.5', '24.22.3', '24.23.0', '28.0.0'])
      expect(warningAboutNode(version, own)).to.equal(null)
    expect(warningAboutNode(pinnedNode, `/home/a/latchkey/.node/${pinnedNode}/node`)).to.equal(null)
  })
})
