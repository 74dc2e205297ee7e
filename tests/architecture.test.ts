// The import rules, and further rules for the sources, checked by reading them.
import { globSync, readFileSync } from 'node:fs'
import { posix } from 'node:path'
import { expect } from 'chai'

interface Import {
  file: string
  /** A package, or a path from the project's root. */
  target: string
  isType: boolean
  isDynamic: boolean
}

const files = globSync('{packages,shared,services,commands}/**/*.{ts,js}')
  .filter(file => !/\/pages\/docs\/(redoc\.standalone\.js$|swagger\/)|^packages\/client\/dist\//.test(file))
  .map(file => file.replaceAll('\\', '/'))
const sources = new Map(files.map(file => [file, readFileSync(file, 'utf8')]))

function importsOf(file: string, source: string): Import[] {
  const found: Import[] = []
  const patterns = [
    /^(?<keyword>import|export)\s+(?<type>type\s)?[^'"]*?from\s+['"](?<specifier>[^'"]+)['"]/gms,
    /\bimport\(\s*['"](?<specifier>[^'"]+)['"]/g,
    /\bnew URL\(\s*['"](?<specifier>[^'"]+)['"]\s*,\s*import\.meta\.url/g,
  ]
  for (const pattern of patterns) {
    for (const { groups } of source.matchAll(pattern)) {
      const { specifier = '', type, keyword } = groups ?? {}
      const target = specifier.startsWith('.') ? posix.join(posix.dirname(file), specifier) : specifier
      found.push({ file, target, isType: type !== undefined, isDynamic: keyword === undefined })
    }
  }
  return found
}

const isPackage = (target: string) => !/^(packages|shared|services|commands|tools|tests|prove|bench)\//.test(target)
const isPort = (target: string): boolean => /^services\/auth\/stores\/\w+Port\.ts$/.test(target)
const isWithin =
  (...folders: string[]) =>
  (target: string) =>
    folders.some(folder => target.startsWith(folder))

/** The folders of the adapters. */
const adapterOf = (file: string) => posix.dirname(file)

/** Code that runs in a browser. */
const page = /^services\/auth\/pages\/(account|console|docs)\//

const maxLines = 350

interface Rule {
  sentence: string
  files: RegExp
  allows: (imported: Import) => boolean
}

const rules: Rule[] = [
  {
    sentence: 'the client stands alone',
    files: /^packages\/client\//,
    allows: ({ file, target, isType }) =>
      /^(node:|undici$)/.test(target) ||
      isWithin('packages/client/')(target) ||
      // Only who has the framework imports its adapter.
      (isType && file === `packages/client/${target}.ts`),
  },
  {
    sentence: 'shared knows no service',
    files: /^shared\//,
    allows: ({ target }) =>
      isPackage(target) ||
      isWithin(
        'shared/',
        'packages/client/bearer',
        'packages/client/errors',
        'packages/client/requestIdentity',
      )(target),
  },
  {
    sentence: 'Business reaches Auth over HTTP only',
    files: /^services\/business\//,
    allows: ({ target }) => isPackage(target) || isWithin('shared/', 'packages/client/', 'services/business/')(target),
  },
  {
    sentence: 'Auth does not know who calls it',
    files: /^services\/auth\//,
    allows: ({ target }) =>
      isPackage(target) ||
      isWithin(
        'shared/',
        'services/auth/',
        'packages/client/bearer',
        'packages/client/contract',
        'packages/client/everySecond',
        'packages/client/rules',
      )(target),
  },
  {
    sentence: 'what is not in the image is not imported',
    files: /./,
    allows: ({ target }) => !isWithin('tools/', 'tests/', 'bench/', 'prove/')(target),
  },
  {
    sentence: 'routes call use cases, never stores',
    files: /^services\/auth\/(routes|guards|dialects)\//,
    allows: ({ target }) => !isWithin('services/auth/stores/')(target),
  },
  {
    sentence: 'commands compose nothing by hand',
    files: /^commands\//,
    allows: ({ target, isType }) =>
      isType ||
      !/^services\/auth\/(app|telemetry|listeners|guards|observability|pages|tokens|defence|stores\/\w+\/)/.test(
        target,
      ),
  },
  {
    sentence: 'a use case knows neither HTTP nor the database',
    files: /^services\/auth\/(tokens|users|defence)\//,
    allows: ({ target }) =>
      !/koa/.test(target) &&
      !isWithin('shared/http/listener.ts', 'shared/http/types.ts')(target) &&
      (!isWithin('services/auth/stores/')(target) || isPort(target)),
  },
  {
    sentence: 'an adapter knows one database',
    files: /^services\/auth\/stores\/(?!index|\w+Port|rates)/,
    allows: ({ file, target }) => {
      if (isPackage(target)) return !/koa/.test(target)
      return isWithin(
        'shared/',
        'packages/client/contract',
        'services/auth/stores/tokenPort',
        'services/auth/stores/userPort',
        'services/auth/stores/usagePort',
        'services/auth/stores/rates',
        `${adapterOf(file)}/`,
      )(target)
    },
  },
  {
    sentence: 'the driver of an unused store is never loaded',
    files: /^services\/auth\/stores\/index\.ts$/,
    allows: ({ target, isDynamic, isType }) => isPort(target) || isDynamic || (isType && isWithin('shared/')(target)),
  },
  {
    sentence: 'a dialect that is not opened is never loaded',
    files: /./,
    allows: ({ target, isDynamic }) =>
      !/^services\/auth\/dialects\/(?!index|dialect\.ts|settings|olderNames|requests)/.test(target) || isDynamic,
  },
  {
    sentence: 'a page imports only what is served with it',
    files: page,
    allows: ({ target, isType }) =>
      page.test(target) ||
      ['preact', 'preact/hooks', 'htm'].includes(target) ||
      // Types are erased when a page is served.
      (isType && /^(packages\/client\/contract|services\/auth\/observability\/streamEvents)\.ts$/.test(target)),
  },
  {
    sentence: 'only a browser imports a page',
    files: /^(?!services\/auth\/pages\/(account|console|docs)\/)/,
    allows: ({ target, isType }) => isType || !page.test(target),
  },
  {
    sentence: 'no file imports main.ts',
    files: /./,
    allows: ({ target }) => !target.endsWith('main.ts'),
  },
  {
    sentence: 'only the client, forward.ts and commands use undici',
    files: /^(?!packages\/client\/|services\/business\/forward\.ts|commands\/)/,
    allows: ({ target }) => target !== 'undici',
  },
]

/** "file imports target: sentence" for every import that a rule forbids. */
function broken(imports: Import[]): string[] {
  return imports.flatMap(imported =>
    rules
      .filter(rule => rule.files.test(imported.file) && !rule.allows(imported))
      .map(rule => `${imported.file} imports ${imported.target}: ${rule.sentence}`),
  )
}

/** Returns each circle of imports once, as a path that begins and ends at the same file. */
function circlesOf(imports: Import[]): string[] {
  const circles: string[] = []
  const done = new Set<string>()
  const visit = (file: string, path: string[]): void => {
    const start = path.indexOf(file)
    if (start >= 0) circles.push([...path.slice(start), file].join(' -> '))
    if (start >= 0 || done.has(file)) return
    for (const { target } of imports.filter(imported => imported.file === file)) visit(target, [...path, file])
    done.add(file)
  }
  for (const { file } of imports) visit(file, [])
  return circles
}

describe('the source code', () => {
  it('keeps its import rules', () => {
    expect(broken([...sources].flatMap(([file, source]) => importsOf(file, source)))).to.deep.equal([])
  })

  it('reports an import that breaks a rule', () => {
    const planted: [string, string, string][] = [
      [
        'packages/client/bearer.ts',
        "import { AppError } from '../../shared/http/errors.ts'",
        'the client stands alone',
      ],
      [
        'commands/users/userActions.ts',
        "import { fuzz } from '../../tools/fuzz.ts'",
        'what is not in the image is not imported',
      ],
      ['shared/http/listener.ts', "import { openAuth } from '../../services/auth/app.ts'", 'shared knows no service'],
      [
        'services/business/data.ts',
        "import type { Tokens } from '../auth/tokens/tokens.ts'",
        'Business reaches Auth over HTTP only',
      ],
      ['services/auth/app.ts', "import { data } from '../business/data.ts'", 'Auth does not know who calls it'],
      [
        'services/auth/routes/login.ts',
        "import type { UserRecord } from '../stores/userPort.ts'",
        'routes call use cases, never stores',
      ],
      [
        'services/auth/guards/requireSession.ts',
        "import type { TokenRecord } from '../stores/tokenPort.ts'",
        'routes call use cases, never stores',
      ],
      [
        'commands/users/importUsers.ts',
        "import { createTokens } from '../../services/auth/tokens/tokens.ts'",
        'commands compose nothing by hand',
      ],
      ['services/auth/tokens/tokens.ts', "import Koa from 'koa'", 'a use case knows neither HTTP nor the database'],
      [
        'services/auth/users/users.ts',
        "import { openUserStore } from '../stores/memory/tokenStore.ts'",
        'a use case knows neither HTTP nor the database',
      ],
      [
        'services/auth/stores/memory/tokenStore.ts',
        "import { openTokenStore } from '../redis/tokenStore.ts'",
        'an adapter knows one database',
      ],
      [
        'services/auth/stores/index.ts',
        "import { openTokenStore } from './memory/tokenStore.ts'",
        'the driver of an unused store is never loaded',
      ],
      [
        'services/auth/app.ts',
        "import { flaskJwt } from './dialects/flaskJwt.ts'",
        'a dialect that is not opened is never loaded',
      ],
      [
        'services/auth/pages/console/clock.ts',
        "import { bearer } from '../../../../packages/client/bearer.ts'",
        'a page imports only what is served with it',
      ],
      ['services/auth/app.ts', "import { now } from './pages/console/clock.ts'", 'only a browser imports a page'],
      ['services/auth/app.ts', "import './main.ts'\nimport x from './main.ts'", 'no file imports main.ts'],
      [
        'services/business/data.ts',
        "import { request } from 'undici'",
        'only the client, forward.ts and commands use undici',
      ],
    ]
    for (const [file, source, sentence] of planted) {
      const [problem] = broken(importsOf(file, source))
      expect(problem, source).to.match(new RegExp(`^${file} imports .*: ${sentence}$`))
    }
  })

  it('has no circles of imports, types included', () => {
    expect(circlesOf([...sources].flatMap(([file, source]) => importsOf(file, source)))).to.deep.equal([])
    const planted = [
      ...importsOf('shared/a.ts', "import type { B } from './b.ts'"),
      ...importsOf('shared/b.ts', "const a = await import('./a.ts')"),
    ]
    expect(circlesOf(planted)).to.deep.equal(['shared/a.ts -> shared/b.ts -> shared/a.ts'])
  })

  it('loads no log and no metrics for latchkey users, which would start slower', () => {
    const loaded = new Set(['commands/latchkey.ts', 'commands/users/userActions.ts'])
    for (const file of loaded) {
      for (const { target, isType, isDynamic } of importsOf(file, sources.get(file) ?? '')) {
        if (!isType && !isDynamic) loaded.add(target)
      }
    }
    expect([...loaded]).to.include.members(['services/auth/useCases.ts', 'services/business/routes.ts', 'zod'])
    expect(['winston', '@prometheus-io/client'].filter(name => loaded.has(name))).to.deep.equal([])
  })

  // The linter checks that no function has more than 120 lines: noExcessiveLinesPerFunction in biome.json.
  it('has no file of more than 350 lines', () => {
    const tooLong = [...sources].filter(([, source]) => source.split('\n').length - 1 > maxLines).map(([file]) => file)
    expect(tooLong).to.deep.equal([])
  })

  it('reads the environment and the clock in main.ts only, and where a service opens the client', () => {
    const readers = [...sources].filter(
      ([file, source]) =>
        !file.startsWith('commands/') && !file.endsWith('main.ts') && /process\.env|Date\.now/.test(source),
    )
    expect(readers.map(([file]) => file)).to.deep.equal(['packages/client/latchkey.ts'])
  })

  it('compares no secret with === but in the stores, which have only hashes of 256 random bits', () => {
    const name = String.raw`\b[\w.]*(?:[kK]ey|[sS]ecret|[pP]assword|[hH]ash|[tT]oken)\b(?!\.)`
    const comparison = new RegExp(`(?:${name} [!=]==|[!=]== ${name})`)
    // A comparison with an empty value, the public default password or the public mark of service accounts reveals nothing.
    const harmless = /[!=]== (?:null|undefined|''|defaultDemo.password|serviceAccountMark)/
    const found = [...sources].flatMap(([file, source]) =>
      // Pages and commands compare what their own user typed; no client can measure how long that takes.
      /^(services\/auth\/(stores|pages\/console)|commands)\//.test(file)
        ? []
        : source.split('\n').filter(line => comparison.test(line) && !harmless.test(line)),
    )
    expect(found).to.deep.equal([])
    expect(comparison.test('if (given === serviceKey)') && comparison.test('row.hash !== other')).to.equal(true)
  })

  it('has no file called utils, helpers, common, manager or base', () => {
    const wordsOf = (file: string) => (posix.basename(file).split('.')[0] as string).split(/(?=[A-Z])/)
    const isVague = (file: string) => wordsOf(file).some(word => /^(utils?|helpers?|common|manager|base)$/i.test(word))
    // A dialect has the name of the service that it imitates, such as token-manager.
    expect(files.filter(file => isVague(file) && !/\/dialects\//.test(file))).to.deep.equal([])
  })

  it('says at the top of every file what it owns', () => {
    expect([...sources].filter(([, source]) => !/^(#!.*\n)?\/\/ /.test(source)).map(([file]) => file)).to.deep.equal([])
  })

  it('installs no package in production that runs a script or reports to its makers during installation', () => {
    type Lock = { packages: Record<string, { name?: string; dev?: true; hasInstallScript?: true }> }
    const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as Lock
    const shipped = Object.entries(packages).filter(([, { dev }]) => !dev)
    expect(shipped).to.have.length.above(50)
    expect(shipped.filter(([, { hasInstallScript }]) => hasInstallScript).map(([path]) => path)).to.deep.equal([])
    expect(shipped.filter(([path, { name }]) => /scarf/.test(name ?? path)).map(([path]) => path)).to.deep.equal([])
  })
})
