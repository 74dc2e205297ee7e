// Settings: how an environment is read, what is refused, and that docs/configuration.md agrees.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import type { z } from 'zod'
import { authSettings, readAuthConfig } from '../../../services/auth/config.ts'
import { clearSetting } from '../../../services/auth/dialects/olderNames.ts'
import { lifeSettings } from '../../../services/auth/dialects/settings.ts'
import { businessSettings, readBusinessConfig } from '../../../services/business/config.ts'
import { ConfigError, type Environment } from '../../../shared/config/readSettings.ts'
import { metaOf } from '../../../shared/config/settings.ts'

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
  it('requires only its keys, and has the documented defaults', () => {
    expect(readAuthConfig({ ...keys })).to.deep.equal({
      isDevelopment: true,
      isProduction: false,
      host: '127.0.0.1',
      port: 3001,
      internalHost: '127.0.0.1',
      internalPort: 3101,
      serviceKey: SERVICE_KEY,
      previousServiceKey: null,
      adminKey: ADMIN_KEY,
      previousAdminKey: null,
      workers: 1,
      limitsPerAccount: { freeFailures: 5, mailsPerHour: 5, hashes: 16 },
      limitsPerAddress: { failures: 30, registrations: 30, mails: 30, guestTokens: 120, invalidTokens: 100 },
      tokenLimits: { perUser: 100, total: 10_000_000 },
      ttlMs: 30_000,
      absoluteTtlMs: 43_200_000,
      sweepIntervalMs: 15_000,
      onReuse: 'end',
      maxClockSkewMs: 2000,
      jwt: null,
      tokenStoreUrl: 'memory:',
      snapshotFile: null,
      keyUsageDays: 0,
      userStoreUrl: 'memory:',
      registration: 'open',
      passwordRules: { minLength: 15 },
      passwordHashCost: 10,
      smtp: null,
      hasMail: true,
      addressesOnly: false,
      emailConfirmation: 'off',
      publicUrl: 'http://localhost:3001',
      dialects: [],
      warnings: [],
      businessUrl: null,
      demoUser: { username: 'demo@example.com', password: 'postman' },
      shownDemoUser: { username: 'demo@example.com', password: 'postman' },
      isRegistrationSimple: true,
      logLevel: 'info',
      securityLog: null,
      accessLog: 'all',
      accessPolicy: {
        trustedProxies: 0,
        allowedAddresses: [],
        deniedAddresses: [],
        httpsOnly: false,
        corsOrigins: [],
      },
      tls: null,
      internalTls: null,
      maxConnections: 10_000,
      hasApiDocs: true,
    })
    expect(readBusinessConfig({ SERVICE_KEY })).to.deep.equal({
      isDevelopment: true,
      host: '127.0.0.1',
      port: 3000,
      internalHost: '127.0.0.1',
      internalPort: 3100,
      workers: 1,
      authUrls: ['http://127.0.0.1:3101'],
      forwardUrl: null,
      consoleUrl: null,
      serviceKey: SERVICE_KEY,
      shadowRules: [],
      invalidTokenLimit: 100,
      logLevel: 'info',
      securityLog: null,
      accessLog: 'all',
      accessPolicy: {
        trustedProxies: 0,
        allowedAddresses: [],
        deniedAddresses: [],
        httpsOnly: false,
        corsOrigins: [],
      },
      tls: null,
      internalTls: null,
      maxConnections: 10_000,
      hasApiDocs: true,
    })
  })

  it('reports every problem at once, with what is expected and what was found', () => {
    expect(
      problemsOf({
        ...keys,
        SERVICE_KEY: 'short',
        AUTH_PORT: 'abc',
        TOKEN_TTL_SECONDS: '0',
        LOG_LEVEL: 'loud',
        SWEEP_INTERVAL_SECONDS: '2592000', // longer than the maximum of a timer
      }),
    ).to.deep.equal([
      'SERVICE_KEY: expected at least 32 random characters (openssl rand -hex 32); got something else',
      'LOG_LEVEL: expected error, warn, info, debug; got "loud"',
      'AUTH_PORT: expected a port from 0 to 65535; got "abc"',
      'TOKEN_TTL_SECONDS: expected a whole number of seconds, 1 to 315360000; got "0"',
      'SWEEP_INTERVAL_SECONDS: expected a whole number of seconds, 1 to 86400; got "2592000"',
    ])
  })

  it('refuses a name that is one typo away from a setting, and ignores all other unknown names', () => {
    for (const [name, meant] of [
      ['TOKEN_TTL_SECOND', 'TOKEN_TTL_SECONDS'],
      ['TOKENTTL_SECONDS', 'TOKEN_TTL_SECONDS'],
      ['DENIED_ADRESSES', 'DENIED_ADDRESSES'],
      ['DENIED_ADDRESESS', 'DENIED_ADDRESSES'],
      ['TRUSTED_PROXIE5', 'TRUSTED_PROXIES'],
      ['Log_Level', 'LOG_LEVEL'],
    ] as const) {
      expect(problemsOf({ ...keys, [name]: 'canary' })).to.deep.equal([
        `${name}: no setting has this name; did you mean ${meant}?`,
      ])
    }
    readAuthConfig({ ...keys, TOKEN_TTL: '1', AUTH_PROXY: '1', POST: '1', HOME: '/', LOG_LEVELING: '1', '': '1' })
    const names = Object.keys({ ...authSettings, ...businessSettings })
    const blank = Object.fromEntries(names.flatMap(name => [name, `${name}_FILE`]).map(name => [name, '']))
    for (const read of [readAuthConfig, readBusinessConfig]) read({ ...blank, ...keys })
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
    [{ USER_STORE_URL: 'oracle://db' }, 'USER_STORE_URL'],
    [{ USER_STORE_URL: 'redis://db' }, 'USER_STORE_URL'],
    [{ AUTH_WORKERS: '2', TOKEN_STORE_URL: 'redis://localhost' }, 'AUTH_WORKERS'],
    [{ AUTH_WORKERS: '2', USER_STORE_URL: 'sqlite:users.db' }, 'AUTH_WORKERS'],
    [{ AUTH_WORKERS: '2', TOKEN_STORE_URL: 'redis://localhost', USER_STORE_URL: 'memory://' }, 'AUTH_WORKERS'],
    [{ AUTH_WORKERS: '2', TOKEN_STORE_URL: 'memory:shared', USER_STORE_URL: 'sqlite:users.db' }, 'AUTH_WORKERS'],
    [{ AUTH_WORKERS: '0' }, 'AUTH_WORKERS'],
    [{ TOKEN_FORMAT: 'paseto' }, 'TOKEN_FORMAT'],
    [{ TOKEN_FORMAT: 'jwt' }, 'TOKEN_KEYS'],
    [{ TOKEN_FORMAT: 'jwt', TOKEN_KEYS: 'hunter2' }, 'TOKEN_KEYS'],
    [{ TOKEN_FORMAT: 'jwt', TOKEN_KEYS: '{"keys":[]}' }, 'TOKEN_KEYS'],
    [
      { TOKEN_FORMAT: 'jwt', TOKEN_KEYS: '{"keys":[{"kty":"oct","alg":"HS256","kid":"a","k":"c2hvcnQ"}]}' },
      'TOKEN_KEYS',
    ],
    ...[
      '0'.repeat(43),
      '0123'.repeat(16),
      'My-Password-Is-Long-Enough-To-Sign-Anything',
      Buffer.from('changeme, but not before everybody has read it').toString('base64url'),
      Buffer.alloc(32, 'secret').toString('base64url'),
    ].map((k): [Environment, string] => [
      { TOKEN_FORMAT: 'jwt', TOKEN_KEYS: JSON.stringify({ keys: [{ kty: 'oct', alg: 'HS256', kid: 'a', k }] }) },
      'TOKEN_KEYS',
    ]),
    [{ REGISTRATION: 'yes' }, 'REGISTRATION'],
    [{ PASSWORD_MIN_LENGTH: '7' }, 'PASSWORD_MIN_LENGTH'],
    [{ PASSWORD_HASH_COST: '9' }, 'PASSWORD_HASH_COST'],
    [{ NODE_ENV: 'test', PASSWORD_HASH_COST: '3' }, 'PASSWORD_HASH_COST'],
    [{ SMTP_URL: 'mail.example.com', MAIL_FROM: 'me@example.com' }, 'SMTP_URL'],
    [{ SMTP_URL: 'smtp://mail' }, 'MAIL_FROM'],
    [{ SMTP_URL: 'smtp://mail', MAIL_FROM: 'me' }, 'MAIL_FROM'],
    [{ NODE_ENV: 'production', SMTP_URL: 'smtp://mail', MAIL_FROM: 'me@example.com' }, 'PUBLIC_URL'],
    [{ PUBLIC_URL: 'https://example.com/' }, 'PUBLIC_URL'],
    [{ PUBLIC_URL: 'javascript:alert(1)' }, 'PUBLIC_URL'],
    [{ PUBLIC_URL: 'accounts.example' }, 'PUBLIC_URL'],
    [{ PUBLIC_URL: 'https://example.com/a b' }, 'PUBLIC_URL'],
    [{ SMTP_URL: 'smtp://mail', MAIL_FROM: ' ' }, 'MAIL_FROM'],
    [{ SMTP_URL: 'smtp://mail?logger=true', MAIL_FROM: 'me@example.com' }, 'SMTP_URL'],
    [{ NODE_ENV: 'production', SMTP_URL: 'smtp://mail', MAIL_FROM: 'me@example.com', PUBLIC_URL: ' ' }, 'PUBLIC_URL'],
    [{ PUBLIC_URL: 'https://example.com?a' }, 'PUBLIC_URL'],
    [{ EMAIL_CONFIRMATION: 'on' }, 'EMAIL_CONFIRMATION'],
    [{ DIALECTS: 'cobol-auth:5000' }, 'DIALECTS'],
    [{ NODE_ENV: 'production', EMAIL_CONFIRMATION: 'required' }, 'EMAIL_CONFIRMATION'],
    [{ TOKEN_LIMIT_PER_USER: '0' }, 'TOKEN_LIMIT_PER_USER'],
    [{ TOKEN_LIMIT: 'many' }, 'TOKEN_LIMIT'],
    [{ LOGIN_LIMIT_PER_ADDRESS: '0' }, 'LOGIN_LIMIT_PER_ADDRESS'],
    [{ INVALID_TOKEN_LIMIT_PER_ADDRESS: '-1' }, 'INVALID_TOKEN_LIMIT_PER_ADDRESS'],
    [{ ADMIN_KEY: 'short' }, 'ADMIN_KEY'],
    [{ ADMIN_KEY: SERVICE_KEY }, 'ADMIN_KEY'],
    [{ SERVICE_KEY_PREVIOUS: ADMIN_KEY }, 'ADMIN_KEY'],
    [{ ADMIN_KEY_PREVIOUS: 'short' }, 'ADMIN_KEY_PREVIOUS'],
    [{ ADMIN_KEY_PREVIOUS: 'changeme-changeme-0123456789-abcdef' }, 'ADMIN_KEY_PREVIOUS'],
    [{ ADMIN_KEY_PREVIOUS: ADMIN_KEY }, 'ADMIN_KEY_PREVIOUS'],
    [{ ADMIN_KEY_PREVIOUS: SERVICE_KEY }, 'ADMIN_KEY_PREVIOUS'],
    [{ SERVICE_KEY_PREVIOUS: `${SERVICE_KEY}-old`, ADMIN_KEY_PREVIOUS: `${SERVICE_KEY}-old` }, 'ADMIN_KEY_PREVIOUS'],
    [{ TOKEN_STORE_URL: 'sqlite:x.db', TOKEN_SNAPSHOT_FILE: '/tmp/x' }, 'TOKEN_SNAPSHOT_FILE'],
    [{ NODE_ENV: 'staging' }, 'NODE_ENV'],
    [{ ACCESS_LOG: 'some' }, 'ACCESS_LOG'],
    [{ TRUSTED_PROXIES: '10' }, 'TRUSTED_PROXIES'],
    [{ TRUSTED_PROXIES: '-1' }, 'TRUSTED_PROXIES'],
    [{ TRUSTED_PROXIES: 'true' }, 'TRUSTED_PROXIES'],
    [{ TRUSTED_PROXIES: '10.0.0.0/8,1' }, 'TRUSTED_PROXIES'],
    [{ ALLOWED_ADDRESSES: '010.0.0.1' }, 'ALLOWED_ADDRESSES'],
    [{ ALLOWED_ADDRESSES: '10.0.0.0/8,' }, 'ALLOWED_ADDRESSES'],
    [{ DENIED_ADDRESSES: '10.0.0.0/33' }, 'DENIED_ADDRESSES'],
    [{ DENIED_ADDRESSES: 'example.com' }, 'DENIED_ADDRESSES'],
    [{ CORS_ORIGINS: '*' }, 'CORS_ORIGINS'],
    [{ CORS_ORIGINS: 'null' }, 'CORS_ORIGINS'],
    [{ CORS_ORIGINS: 'https://app.example.com/' }, 'CORS_ORIGINS'],
    [{ CORS_ORIGINS: 'https://app.example.com:443' }, 'CORS_ORIGINS'],
    [{ CORS_ORIGINS: 'https://*.example.com' }, 'CORS_ORIGINS'],
    [{ CORS_ORIGINS: 'app.example.com' }, 'CORS_ORIGINS'],
    [{ CORS_ORIGINS: 'ftp://app.example.com' }, 'CORS_ORIGINS'],
    [{ MAX_CONNECTIONS: '0' }, 'MAX_CONNECTIONS'],
    [{ TLS_CERT_FILE: '/nowhere' }, 'TLS_CERT_FILE'],
    [{ INTERNAL_TLS_KEY_FILE: 'package.json' }, 'INTERNAL_TLS_KEY_FILE'],
    [{ NODE_ENV: 'production', DEMO_USERNAME: 'me@example.com' }, 'DEMO_USERNAME'],
    [{ NODE_ENV: 'production', DEMO_USERNAME: 'me@example.com', DEMO_PASSWORD: 'postman' }, 'DEMO_PASSWORD'],
  ]
  for (const [env, name] of bad) {
    it(`refuses ${JSON.stringify(env)} and names the setting`, () => {
      const problems = problemsOf({ ...keys, ...env })
      expect(problems).to.have.length(1)
      expect(problems[0]).to.match(new RegExp(`^${name}\\b.*: expected `))
    })
  }

  for (const url of [
    '127.0.0.1:3101',
    'ftp://auth',
    'http://auth:3101/path',
    '/path',
    'http://auth-1:3101,auth-2:3101',
    'http://auth-1:3101,',
    'http://auth:3101,http://auth:3101',
    'http://auth-1:3101 http://auth-2:3101',
  ]) {
    it(`refuses AUTH_INTERNAL_URL=${url}`, () => {
      const [problem] = problemsOf({ SERVICE_KEY, AUTH_INTERNAL_URL: url }, readBusinessConfig)
      expect(problem).to.equal(
        `AUTH_INTERNAL_URL: expected an http or https address without a path, or different ones separated by commas; got "${url}"`,
      )
    })
  }

  it('reads several addresses in AUTH_INTERNAL_URL', () => {
    const AUTH_INTERNAL_URL = 'http://auth-1:3101, https://auth-2.example.com'
    const { authUrls } = readBusinessConfig({ SERVICE_KEY, AUTH_INTERNAL_URL })
    expect(authUrls).to.deep.equal(['http://auth-1:3101', 'https://auth-2.example.com'])
  })

  for (const url of [
    'http://auth.example.com',
    'http://203.0.113.7:3101',
    'http://[2001:db8::1]',
    'http://100.64.0.1',
    'http://10.0.0.1,http://auth.example.com',
  ]) {
    it(`refuses AUTH_INTERNAL_URL=${url} in production, because others could read the service key and every token`, () => {
      const production = { SERVICE_KEY, NODE_ENV: 'production', AUTH_INTERNAL_URL: url }
      const [problem] = problemsOf(production, readBusinessConfig)
      expect(problem).to.match(
        /^AUTH_INTERNAL_URL: expected https in production, or a host that is loopback, private, /,
      )
      expect(problemsOf({ ...production, NODE_ENV: 'development' }, readBusinessConfig)).to.deep.equal([])
    })
  }

  for (const url of [
    'https://auth.example.com',
    'http://auth:3101',
    'http://localhost:3101',
    'http://127.0.0.2',
    'http://[::1]:3101',
    'http://[::ffff:10.1.2.3]:3101',
    'http://10.1.2.3:3101',
    'http://172.31.0.1',
    'http://192.168.1.1',
    'http://[fd00::1]:3101',
    'http://auth.railway.internal:3101',
    'http://auth.default.svc.cluster.local:3101',
    'http://10.0.0.1:3101,https://auth.example.com',
  ]) {
    it(`accepts AUTH_INTERNAL_URL=${url} in production`, () => {
      const production = { SERVICE_KEY, NODE_ENV: 'production', AUTH_INTERNAL_URL: url }
      expect(problemsOf(production, readBusinessConfig)).to.deep.equal([])
    })
  }

  it('never repeats a secret', () => {
    const problems = problemsOf({
      ...keys,
      SERVICE_KEY: 'hunter2',
      SERVICE_KEY_PREVIOUS: 'hunter3',
      ADMIN_KEY_PREVIOUS: 'hunter6',
      AUTH_PORT: 'abc',
      USER_STORE_URL: 'mysql://root:hunter4@db',
      SMTP_URL: 'http://me:hunter5@mail',
    })
    expect(problems).to.have.length(6)
    expect(problems.join('\n')).to.not.include('hunter')
  })

  it('reads the settings of the security log for both services', () => {
    const env = { ...keys, SECURITY_LOG_FILE: 'logs/s.log', SECURITY_LOG_MAX_MB: '5', SECURITY_LOG_KEEP_DAYS: '7' }
    for (const read of [readAuthConfig, readBusinessConfig]) {
      expect(read(env).securityLog).to.deep.equal({ path: 'logs/s.log', maxBytes: 5_242_880, keepDays: 7 })
    }
  })

  it('names the URL schemes for tokens and for users', () => {
    expect(problemsOf({ ...keys, TOKEN_STORE_URL: 'oracle://db', USER_STORE_URL: 'redis://db' })).to.deep.equal([
      'TOKEN_STORE_URL: expected a URL that begins with memory:, sqlite:, postgres:, redis:, rediss:, redis-cluster:, redis-sentinel:; got something else',
      'USER_STORE_URL: expected a URL that begins with memory:, sqlite:, postgres:; got something else',
    ])
  })

  it('accepts a snapshot file with a memory store, however its URL is written', () => {
    const env = { ...keys, TOKEN_STORE_URL: 'memory://', TOKEN_SNAPSHOT_FILE: '/tmp/x' }
    expect(readAuthConfig(env).snapshotFile).to.equal('/tmp/x')
  })

  it('treats a blank value as unset', () => {
    expect(readAuthConfig({ ...keys, AUTH_PORT: ' ', DEMO_USERNAME: '' })).to.deep.include({ port: 3001 })
  })

  it('has a demo user in production only if both of its settings are set', () => {
    expect(readAuthConfig({ ...keys, NODE_ENV: 'production' }).demoUser).to.equal(null)
    const DEMO = { DEMO_USERNAME: 'me@example.com', DEMO_PASSWORD: 'long enough to be mine' }
    const { demoUser } = readAuthConfig({ ...keys, NODE_ENV: 'production', ...DEMO })
    expect(demoUser).to.deep.equal({ username: 'me@example.com', password: 'long enough to be mine' })
    expect(readAuthConfig({ ...keys, DEMO_PASSWORD: 'other' }).demoUser).to.deep.equal({
      username: 'demo@example.com',
      password: 'other',
    })
  })

  it('shows the demo user of the README to every visitor, and no other user', () => {
    const shown = (env: Environment) => readAuthConfig({ ...keys, ...env }).shownDemoUser
    expect(shown({})).to.deep.equal({ username: 'demo@example.com', password: 'postman' })
    expect(shown({ DEMO_PASSWORD: 'mine and nobody else knows' })).to.equal(null)
    expect(shown({ DEMO_USERNAME: 'me@example.com' })).to.equal(null)
    expect(shown({ NODE_ENV: 'production' })).to.equal(null)
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

describe('docs/configuration.md', () => {
  const rows = new Map(
    [...readFileSync('docs/configuration.md', 'utf8').matchAll(/^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$/gm)].map(
      ([, name, fallback, meaning]) => [name as string, { fallback, meaning }],
    ),
  )
  const settings: [string, z.ZodType][] = Object.entries({
    ...authSettings,
    ...businessSettings,
    ...Object.assign({}, ...Object.values(lifeSettings), clearSetting),
  })

  it('has a row for every setting and for nothing else', () => {
    expect([...rows.keys()]).to.have.members(settings.map(([name]) => name))
  })

  for (const [name, schema] of settings) {
    it(`describes ${name} as its schema does`, () => {
      const { description, fallback } = metaOf(schema)
      const parsed = schema.safeParse(undefined)
      const plain = parsed.success && parsed.data !== undefined ? String(parsed.data) : 'none'
      expect(rows.get(name)).to.deep.equal({ fallback: fallback ?? plain, meaning: description })
    })
  }
})
