// Settings: what an environment becomes, what is refused, and that the README says the same.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import type { z } from 'zod'
import { authSettings, readAuthConfig } from '../services/auth/config.ts'
import { businessSettings, readBusinessConfig } from '../services/business/config.ts'
import { ConfigError, type Environment, metaOf } from '../shared/config.ts'

const SERVICE_KEY = 'a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6'
const ADMIN_KEY = '6d5c4b3a2f1e0d9c8b7a6f5e4d3c2b1a'
const keys = { SERVICE_KEY, ADMIN_KEY }

function problemsOf(env: Environment, read: (env: Environment) => unknown = readAuthConfig): string[] {
  try {
    read(env)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

describe('the configuration', () => {
  it('needs nothing but its keys, and has the defaults of the contract', () => {
    expect(readAuthConfig({ ...keys })).to.deep.equal({
      host: '127.0.0.1',
      port: 3001,
      internalHost: '127.0.0.1',
      internalPort: 3101,
      serviceKeys: [SERVICE_KEY],
      adminKey: ADMIN_KEY,
      tokenLimits: { perUser: 100, total: 10_000_000 },
      ttlMs: 30_000,
      absoluteTtlMs: 43_200_000,
      sweepIntervalMs: 15_000,
      tokenStoreUrl: 'memory:',
      snapshotFile: null,
      userStoreUrl: 'memory:',
      demoUser: { username: 'demo@example.com', password: 'postman' },
      logLevel: 'info',
      accessLog: 'all',
    })
    expect(readBusinessConfig({ SERVICE_KEY })).to.deep.equal({
      host: '127.0.0.1',
      port: 3000,
      authUrl: 'http://127.0.0.1:3101',
      serviceKey: SERVICE_KEY,
      logLevel: 'info',
      accessLog: 'all',
    })
  })

  it('reports every problem at once, with what is expected and what was there', () => {
    expect(
      problemsOf({ ...keys, SERVICE_KEY: 'short', AUTH_PORT: 'abc', TOKEN_TTL_SECONDS: '0', LOG_LEVEL: 'loud' }),
    ).to.deep.equal([
      'SERVICE_KEY: expected at least 32 random characters (openssl rand -hex 32); it is not',
      'LOG_LEVEL: expected error, warn, info, debug; got "loud"',
      'AUTH_PORT: expected a port from 0 to 65535; got "abc"',
      'TOKEN_TTL_SECONDS: expected a whole number of seconds, 1 or more; got "0"',
    ])
  })

  const bad: [Environment, string][] = [
    [{ AUTH_PORT: '65536' }, 'AUTH_PORT'],
    [{ AUTH_PORT: '-1' }, 'AUTH_PORT'],
    [{ AUTH_PORT: '80.5' }, 'AUTH_PORT'],
    [{ SERVICE_KEY: 'x'.repeat(40) }, 'SERVICE_KEY'],
    [{ SERVICE_KEY: 'changeme-changeme-0123456789-abcdef' }, 'SERVICE_KEY'],
    [{ SERVICE_KEY: 'with blanks 0123456789 abcdefghijklmnop' }, 'SERVICE_KEY'],
    [{ SERVICE_KEY: '' }, 'SERVICE_KEY'],
    [{ SERVICE_KEY_PREVIOUS: 'short' }, 'SERVICE_KEY_PREVIOUS'],
    [{ TOKEN_TTL_SECONDS: '30s' }, 'TOKEN_TTL_SECONDS'],
    [{ TOKEN_TTL_SECONDS: '60', TOKEN_ABSOLUTE_TTL_SECONDS: '59' }, 'TOKEN_ABSOLUTE_TTL_SECONDS'],
    [{ TOKEN_STORE_URL: 'memory' }, 'TOKEN_STORE_URL'],
    [{ TOKEN_LIMIT_PER_USER: '0' }, 'TOKEN_LIMIT_PER_USER'],
    [{ TOKEN_LIMIT: 'many' }, 'TOKEN_LIMIT'],
    [{ ADMIN_KEY: 'short' }, 'ADMIN_KEY'],
    [{ TOKEN_STORE_URL: 'redis://127.0.0.1', TOKEN_SNAPSHOT_FILE: '/tmp/x' }, 'TOKEN_SNAPSHOT_FILE'],
    [{ NODE_ENV: 'staging' }, 'NODE_ENV'],
    [{ ACCESS_LOG: 'some' }, 'ACCESS_LOG'],
    [{ NODE_ENV: 'production', DEMO_USERNAME: 'me@example.com' }, 'DEMO_USERNAME'],
    [{ NODE_ENV: 'production', DEMO_USERNAME: 'me@example.com', DEMO_PASSWORD: 'postman' }, 'DEMO_PASSWORD'],
  ]
  for (const [env, name] of bad) {
    it(`refuses ${JSON.stringify(env)} by name`, () => {
      const problems = problemsOf({ ...keys, ...env })
      expect(problems).to.have.length(1)
      expect(problems[0]).to.match(new RegExp(`^${name}\\b.*: expected `))
    })
  }

  for (const url of ['127.0.0.1:3101', 'ftp://auth', 'http://auth:3101/path', '/path']) {
    it(`refuses AUTH_INTERNAL_URL=${url}`, () => {
      const [problem] = problemsOf({ SERVICE_KEY, AUTH_INTERNAL_URL: url }, readBusinessConfig)
      expect(problem).to.equal(`AUTH_INTERNAL_URL: expected an http or https address without a path; got "${url}"`)
    })
  }

  it('never repeats a secret', () => {
    const problems = problemsOf({ ...keys, SERVICE_KEY: 'hunter2', SERVICE_KEY_PREVIOUS: 'hunter3', AUTH_PORT: 'abc' })
    expect(problems).to.have.length(3)
    expect(problems.join('\n')).to.not.include('hunter')
  })

  it('takes blank for unset', () => {
    expect(readAuthConfig({ ...keys, AUTH_PORT: ' ', DEMO_USERNAME: '' })).to.deep.include({ port: 3001 })
  })

  it('has a demo user in production only where both its settings are set', () => {
    expect(readAuthConfig({ ...keys, NODE_ENV: 'production' }).demoUser).to.equal(null)
    const DEMO = { DEMO_USERNAME: 'me@example.com', DEMO_PASSWORD: 'long enough to be mine' }
    const { demoUser } = readAuthConfig({ ...keys, NODE_ENV: 'production', ...DEMO })
    expect(demoUser).to.deep.equal({ username: 'me@example.com', password: 'long enough to be mine' })
    expect(readAuthConfig({ ...keys, DEMO_PASSWORD: 'other' }).demoUser).to.deep.equal({
      username: 'demo@example.com',
      password: 'other',
    })
  })

  it('reads a secret from the file that NAME_FILE names', () => {
    const folder = mkdtempSync(join(tmpdir(), 'latchkey-config-'))
    const file = join(folder, 'key')
    writeFileSync(file, `${SERVICE_KEY}\n`)
    expect(readBusinessConfig({ SERVICE_KEY_FILE: file }).serviceKey).to.equal(SERVICE_KEY)
    rmSync(folder, { recursive: true })
    expect(problemsOf({ SERVICE_KEY_FILE: file })[0]).to.equal(
      `SERVICE_KEY_FILE: expected a readable file; ${file}: ENOENT`,
    )
  })
})

describe('the table of settings in the README', () => {
  const rows = new Map(
    [...readFileSync('README.md', 'utf8').matchAll(/^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$/gm)].map(
      ([, name, fallback, meaning]) => [name as string, { fallback, meaning }],
    ),
  )
  const settings: [string, z.ZodType][] = Object.entries({ ...authSettings, ...businessSettings })

  it('has a row for every setting and for nothing else', () => {
    expect([...rows.keys()]).to.have.members(settings.map(([name]) => name))
  })

  for (const [name, schema] of settings) {
    it(`says of ${name} what the schema says`, () => {
      const { description, fallback } = metaOf(schema)
      const parsed = schema.safeParse(undefined)
      const plain = parsed.success && parsed.data !== undefined ? String(parsed.data) : 'none'
      const seconds = name.endsWith('_SECONDS') ? String(Number(plain) / 1000) : plain
      expect(rows.get(name)).to.deep.equal({ fallback: fallback ?? seconds, meaning: description })
    })
  }
})
