// The settings of dialects, from the environment and from the config.xml of token-provider.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { readAuthConfig } from '../../../services/auth/config.ts'
import { dialectNames } from '../../../services/auth/dialects/index.ts'
import { parseConfigXml } from '../../../services/auth/dialects/olderNames.ts'
import type { Environment } from '../../../shared/config/readSettings.ts'
import { adminKey } from '../../support/credentials.ts'
import { minute, problemsOf } from '../../support/dialects.ts'
import { closeServers, openTestAuth } from '../../support/servers.ts'

describe('the settings of dialects', () => {
  after(closeServers)

  describe('DIALECTS', () => {
    const of = (DIALECTS: string, env: Environment = {}) =>
      readAuthConfig({ SERVICE_KEY: 'a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6', ADMIN_KEY: adminKey, DIALECTS, ...env })

    it('gives each dialect a port and the token lifetime of its service', () => {
      expect(of('token-provider:5001, token-manager:8000,flask-jwt:5002 ,flask-auth:0').dialects).to.deep.equal([
        { name: 'token-provider', port: 5001, ttlMs: minute },
        { name: 'token-manager', port: 8000, ttlMs: 60 * minute },
        { name: 'flask-jwt', port: 5002, ttlMs: 35 * minute },
        { name: 'flask-auth', port: 0, ttlMs: 15 * minute },
      ])
      expect(of(' ').dialects).to.deep.equal([])
    })

    const bad = [
      'flask',
      'flask-jwt',
      'flask-jwt:',
      'flask-jwt:65536',
      'flask-jwt:-1',
      'flask-jwt:5e3',
      'flask-jwt:5002,',
      'flask-jwt:5002,flask-jwt:5003',
      'flask-jwt:5002;flask-auth:5000',
      'constructor:5000',
      'Flask-JWT:5002',
    ]
    for (const value of bad) {
      it(`refuses ${value}`, () => {
        expect(problemsOf({ DIALECTS: value })).to.deep.equal([
          `DIALECTS: expected name:port, separated by commas; names are ${dialectNames.join(', ')}, each at most once, and ports 0 to 65535; got ${JSON.stringify(value)}`,
        ])
      })
    }

    it('reads the settings of the listed dialects only', () => {
      const TOKEN_TTL_MINUTES = 'soon'
      expect(problemsOf({ TOKEN_TTL_MINUTES })).to.deep.equal([])
      expect(problemsOf({ DIALECTS: 'flask-jwt:0', TOKEN_TTL_MINUTES })).to.deep.equal([])
      expect(problemsOf({ DIALECTS: 'token-manager:0', TOKEN_TTL_MINUTES })).to.deep.equal([
        'TOKEN_TTL_MINUTES: expected a whole number of minutes, 1 or more; got "soon"',
      ])
      expect(of('flask-jwt:0', { FLASK_JWT_TTL_MINUTES: '5' }).dialects[0]?.ttlMs).to.equal(5 * minute)
    })

    it('reports the problems of a dialect together with all others', () => {
      const problems = problemsOf({
        DIALECTS: 'token-provider:0',
        TOKEN_EXPIRATION_TIME: '0',
        TOKEN_CLEAR_FREQUENCY: 'often',
        AUTH_PORT: 'x',
      })
      expect(problems.map(problem => problem.split(':')[0])).to.have.members([
        'TOKEN_EXPIRATION_TIME',
        'TOKEN_CLEAR_FREQUENCY',
        'AUTH_PORT',
      ])
    })
  })

  describe('the configuration of token-provider', () => {
    const folders: string[] = []
    after(() => {
      for (const folder of folders) rmSync(folder, { recursive: true })
    })

    function file(text: string): string {
      const folder = mkdtempSync(join(tmpdir(), 'latchkey-dialects-'))
      folders.push(folder)
      writeFileSync(join(folder, 'config.xml'), text)
      return join(folder, 'config.xml')
    }

    const xml = (inner: string) => `<config>\n    <environment>\n${inner}\n    </environment>\n</config>`
    const read = (env: Environment) =>
      readAuthConfig({
        SERVICE_KEY: 'a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6',
        ADMIN_KEY: adminKey,
        DIALECTS: 'token-provider:0',
        ...env,
      })
    const whole = xml(`
      <POSTGRESQL_USERNAME>somebody</POSTGRESQL_USERNAME>
      <POSTGRESQL_PASSWORD>hunter2</POSTGRESQL_PASSWORD>
      <POSTGRESQL_DB_NAME>postgres</POSTGRESQL_DB_NAME>
      <POSTGRESQL_HOST>postgres_db</POSTGRESQL_HOST>
      <POSTGRESQL_DB_PORT>5432</POSTGRESQL_DB_PORT>
      <TOKEN_EXPIRATION_TIME>90</TOKEN_EXPIRATION_TIME>
      <TOKEN_CLEAR_FREQUENCY>45</TOKEN_CLEAR_FREQUENCY>
      <LOG_LEVEL>DEBUG</LOG_LEVEL>
      <POSTGRESQL_SSL_MODE>require</POSTGRESQL_SSL_MODE>
      <BACKEND_APP_PORT>8080</BACKEND_APP_PORT>`)

    it('is read from the environment under its older names', () => {
      const config = read({ TOKEN_EXPIRATION_TIME: '90', TOKEN_CLEAR_FREQUENCY: '45', LOG_LEVEL: 'WARNING' })
      expect(config.dialects[0]).to.include({ ttlMs: 90_000 })
      expect(config).to.include({ sweepIntervalMs: 45_000, logLevel: 'warn' })
      expect(config.warnings).to.deep.equal([])
    })

    it('is read from config.xml, and so are the tokens, in its PostgreSQL', () => {
      const config = read({ CONFIG_XML: file(whole) })
      expect(config.dialects[0]).to.include({ ttlMs: 90_000 })
      const tokenStoreUrl = 'postgres://somebody:hunter2@postgres_db:5432/postgres?sslmode=require'
      expect(config).to.include({ sweepIntervalMs: 45_000, logLevel: 'debug', tokenStoreUrl })
      expect(config.warnings).to.deep.equal([
        'BACKEND_APP_PORT: no effect here; DIALECTS sets the port of token-provider',
        'POSTGRESQL_USERNAME, POSTGRESQL_PASSWORD, POSTGRESQL_DB_NAME, POSTGRESQL_HOST, POSTGRESQL_DB_PORT, POSTGRESQL_SSL_MODE: tokens are kept there; better set TOKEN_STORE_URL',
      ])
    })

    it('is read from config.xml in the working directory if that file exists', () => {
      const from = process.cwd()
      expect(read({}).dialects[0]).to.include({ ttlMs: minute })
      process.chdir(join(file(whole), '..'))
      try {
        expect(read({}).dialects[0]).to.include({ ttlMs: 90_000 })
        expect(read({ DIALECTS: 'token-manager:0' }).sweepIntervalMs).to.equal(15_000)
      } finally {
        process.chdir(from)
      }
    })

    it('is overridden by the environment, and older names by ours', () => {
      const CONFIG_XML = file(whole)
      const config = read({ CONFIG_XML, TOKEN_EXPIRATION_TIME: '7', SWEEP_INTERVAL_SECONDS: '8', LOG_LEVEL: 'error' })
      expect(config.dialects[0]).to.include({ ttlMs: 7000 })
      expect(config).to.include({ sweepIntervalMs: 8000, logLevel: 'error' })
    })

    it('is limited to those names, so a file cannot set a key', () => {
      const inner = '<ADMIN_KEY>0123456789abcdef0123456789abcdef</ADMIN_KEY><TOKEN_LIMIT>1</TOKEN_LIMIT>'
      const config = read({ CONFIG_XML: file(xml(inner)) })
      expect(config.adminKey).to.equal(adminKey)
      expect(config.tokenLimits.total).to.equal(10_000_000)
      expect(config.warnings.map(warning => warning.replace(/^.*config\.xml/, 'config.xml'))).to.deep.equal([
        'config.xml: ADMIN_KEY is ignored; only settings of the older service are read',
        'config.xml: TOKEN_LIMIT is ignored; only settings of the older service are read',
      ])
    })

    it('logs its warnings', async () => {
      const { lines } = await openTestAuth({
        env: { DIALECTS: 'token-provider:0', CONFIG_XML: file(xml('<COLOUR>green</COLOUR>')) },
      })
      const [line] = lines.filter(({ level }) => level === 'warn')
      expect(line?.event).to.equal('config_warning')
      expect(line?.['warning']).to.match(/COLOUR is ignored/)
    })

    it('is refused if the file is missing, unreadable or not such XML', () => {
      expect(problemsOf({ DIALECTS: 'token-provider:0', CONFIG_XML: '/nowhere/config.xml' })).to.deep.equal([
        'CONFIG_XML: expected a readable file; /nowhere/config.xml: ENOENT',
      ])
      const [problem] = problemsOf({ DIALECTS: 'token-provider:0', CONFIG_XML: file('<config/>') })
      expect(problem).to.match(/^CONFIG_XML: expected <config><environment> with one element for each setting/)
      expect(problemsOf({ DIALECTS: 'flask-jwt:0', CONFIG_XML: '/nowhere/config.xml' })).to.deep.equal([])
    })

    it('reports an invalid value under the name that was used', () => {
      const CONFIG_XML = file(xml('<TOKEN_CLEAR_FREQUENCY>often</TOKEN_CLEAR_FREQUENCY>'))
      expect(problemsOf({ DIALECTS: 'token-provider:0', CONFIG_XML })).to.deep.equal([
        'TOKEN_CLEAR_FREQUENCY: expected a whole number of seconds, 1 to 86400; got "often"',
      ])
    })

    it('accepts a declaration, comments, blanks and the five entities', () => {
      const text = `\uFEFF<?xml version="1.0" encoding="UTF-8"?>\n<!-- a <comment> -->\n${xml(
        '<A> a &amp; b &lt;&gt;&quot;&apos; </A><!-- <B>1</B> --><C></C>',
      )}\n`
      expect(parseConfigXml(text)).to.deep.equal({ A: `a & b <>"'`, C: '' })
    })

    const hostile: [string, string][] = [
      ['a DTD', `<!DOCTYPE config [<!ENTITY a "b">]>${xml('<A>&a;</A>')}`],
      ['an external entity', `<!DOCTYPE config SYSTEM "file:///etc/passwd">${xml('<A>1</A>')}`],
      ['a DTD within', xml('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><A>&b;</A>')],
      ['an entity of its own', xml('<A>&a;</A>')],
      ['a character reference', xml('<A>&#49;</A>')],
      ['CDATA', xml('<A><![CDATA[1]]></A>')],
      ['an attribute', xml('<A b="1">1</A>')],
      ['an attribute of the root', '<config a="1"><environment></environment></config>'],
      ['elements in elements', xml('<A><B>1</B></A>')],
      ['the same element twice', xml('<A>1</A><A>2</A>')],
      ['an element without an end tag', xml('<A>1')],
      ['an element with the wrong end tag', xml('<A>1</B>')],
      ['text between elements', xml('<A>1</A>1<B>1</B>')],
      ['a processing instruction', xml('<?a b?><A>1</A>')],
      ['an inclusion', xml('<xi:include href="/etc/passwd"/>')],
      ['another root', '<settings><environment></environment></settings>'],
      ['two roots', `${xml('')}${xml('')}`],
      ['nothing', ''],
    ]
    for (const [what, text] of hostile) {
      it(`rejects ${what}`, () => expect(parseConfigXml(text)).to.equal(null))
    }

    it('rejects a large malformed file quickly', () => {
      const startedAt = performance.now()
      for (const times of [4000, 1_000_000]) {
        for (const piece of ['<A>', '<config>', '<!--', ' ', '&', '<A>1</A>']) {
          expect(parseConfigXml(piece.repeat(times))).to.equal(null)
          parseConfigXml(xml(piece.repeat(times)))
        }
      }
      expect(performance.now() - startedAt).to.be.below(3000)
    })
  })

  describe('the environment of an older service', () => {
    const read = (DIALECTS: string, env: Environment) => {
      const SERVICE_KEY = 'a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6'
      const { tokenStoreUrl, warnings, dialects } = readAuthConfig({
        SERVICE_KEY,
        ADMIN_KEY: adminKey,
        DIALECTS,
        ...env,
      })
      return { tokenStoreUrl, warnings, dialects }
    }
    const used = (names: string) => [`${names}: tokens are kept there; better set TOKEN_STORE_URL`]
    const unused = (names: string) => [`${names}: no effect here; set TOKEN_STORE_URL`]

    const stores: [string, string, Environment, string, string[]][] = [
      ['Redis', 'flask-jwt', { REDIS_HOST: 'cache' }, 'redis://cache:6379', used('REDIS_HOST')],
      [
        'Redis and its port',
        'flask-jwt',
        { REDIS_HOST: 'cache', REDIS_PORT: '6380' },
        'redis://cache:6380',
        used('REDIS_HOST, REDIS_PORT'),
      ],
      ['a port alone', 'flask-jwt', { REDIS_PORT: '6380' }, 'memory:', unused('REDIS_PORT')],
      [
        'SQLite',
        'token-manager',
        { DATABASE_URL: 'sqlite+aiosqlite:///./tokens.db' },
        'sqlite:./tokens.db',
        used('DATABASE_URL'),
      ],
      [
        'PostgreSQL',
        'token-manager',
        { DATABASE_URL: 'postgresql+asyncpg://a:b@db/tokens' },
        'postgres://a:b@db/tokens',
        used('DATABASE_URL'),
      ],
      ['another database', 'token-manager', { DATABASE_URL: 'mysql://db/t' }, 'memory:', unused('DATABASE_URL')],
      [
        'a database of Heroku',
        'token-manager',
        { DATABASE_URL: 'postgres://db/users', DYNO: 'web.1' },
        'memory:',
        unused('DATABASE_URL'),
      ],
      [
        'a store under our own name',
        'flask-jwt',
        { REDIS_HOST: 'cache', TOKEN_STORE_URL: 'redis://ours' },
        'redis://ours',
        unused('REDIS_HOST'),
      ],
      [
        'PostgreSQL, with every character in the password',
        'token-provider',
        { POSTGRESQL_HOST: 'db', POSTGRESQL_USERNAME: 'a', POSTGRESQL_PASSWORD: 'b@c/d:e%' },
        'postgres://a:b%40c%2Fd%3Ae%25@db',
        used('POSTGRESQL_HOST, POSTGRESQL_USERNAME, POSTGRESQL_PASSWORD'),
      ],
      [
        'a host with its port',
        'token-provider',
        { POSTGRESQL_HOST: 'db:5432', POSTGRESQL_PASSWORD: 'hunter2' },
        'memory:',
        unused('POSTGRESQL_HOST, POSTGRESQL_PASSWORD'),
      ],
      ['the names of another service', 'flask-auth', { REDIS_HOST: 'a', DATABASE_URL: 'sqlite:///a' }, 'memory:', []],
    ]
    for (const [what, dialect, env, tokenStoreUrl, warnings] of stores) {
      it(`may name ${what}`, () => {
        expect(read(`${dialect}:0`, env)).to.deep.include({ tokenStoreUrl, warnings })
      })
    }

    it('decides the store once, by the first service that names one', () => {
      const env = { REDIS_HOST: 'cache', POSTGRESQL_HOST: 'db' }
      expect(read('flask-jwt:0,token-provider:0', env)).to.deep.include({
        tokenStoreUrl: 'postgres://db',
        warnings: [...used('POSTGRESQL_HOST'), ...unused('REDIS_HOST')],
      })
    })

    it('may have a JWT_KEY, which has no effect', () => {
      expect(read('flask-jwt:0', { JWT_KEY: 'a secret' }).warnings).to.deep.equal([
        'JWT_KEY: no effect here; tokens of flask-jwt are sessions of Auth',
      ])
    })

    it('may have a title and a description for the documents of token-manager', () => {
      const env = { APP_TITLE: 'Our tokens', APP_DESCRIPTION: 'For all of us' }
      expect(read('token-manager:0', env).dialects[0]).to.include({ title: 'Our tokens', description: 'For all of us' })
      expect(read('flask-jwt:0', env).dialects[0]).to.not.have.any.keys('title', 'description')
    })
  })
})
