// .env.example and docs/configuration.md are generated from the settings, up to date and valid.
import { cpSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseEnv } from 'node:util'
import { expect } from 'chai'
import { readAuthConfig } from '../../services/auth/config.ts'
import { readBusinessConfig } from '../../services/business/config.ts'
import { makeConfigurationPage } from '../../tools/configurationPage.ts'
import { makeEnvExample } from '../../tools/envExample.ts'
import { adminKey, serviceKey } from '../support/credentials.ts'
import { cleanUp, copyOfProject, runStartServer } from '../support/startServer.ts'

const text = readFileSync('.env.example', 'utf8')

describe('.env.example', () => {
  after(cleanUp)

  it('is up to date with the settings; otherwise run npm run env-example', () => {
    expect(text).to.equal(makeEnvExample())
  })

  it('has every setting of docs/configuration.md once', () => {
    const named = [...readFileSync('docs/configuration.md', 'utf8').matchAll(/^\| `([A-Z_]+)`/gm)].map(
      ([, name]) => name as string,
    )
    const listed = [...text.matchAll(/^#([A-Z_]+)=/gm)].map(([, name]) => name as string)
    expect(listed).to.have.members(named)
    expect(new Set(listed).size).to.equal(listed.length)
  })

  it('shows the defaults that apply without it, and no secret', () => {
    const shown = parseEnv(text.replace(/^#(?=[A-Z_]+=)/gm, ''))
    const keys = { SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey }
    expect(readAuthConfig({ ...shown, ...keys })).to.deep.equal(readAuthConfig(keys))
    expect(readBusinessConfig({ ...shown, ...keys })).to.deep.equal(readBusinessConfig(keys))
    for (const [name, value] of Object.entries(shown)) if (/_KEYS?$|PASSWORD$/.test(name)) expect(value).to.equal('')
  })

  it('begins with settings for real users: durable stores and 30 minutes without use', () => {
    const production = [...text.matchAll(/^# {3}([A-Z_]+=.*)$/gm)].map(([, line]) => line).join('\n')
    const keys = { SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey }
    const config = readAuthConfig({ ...parseEnv(production), ...keys })
    expect(config).to.include({ isProduction: true, ttlMs: 1_800_000 })
    for (const url of [config.userStoreUrl, config.tokenStoreUrl]) expect(url).to.match(/^sqlite:\/var\/lib\//)
  })

  it('starts the pair when it is copied to .env unchanged', async () => {
    const folder = copyOfProject()
    cpSync('.env.example', join(folder, '.env'))
    const run = runStartServer({ folder, env: { NODE_ENV: undefined, SERVICE_KEY: undefined, ADMIN_KEY: undefined } })
    const { business } = await run.ready
    expect((await fetch(`${business}/ready`)).status).to.equal(200)
    const completed = readFileSync(join(folder, '.env'), 'utf8')
    expect(completed.startsWith(text)).to.equal(true)
    expect(Object.keys(parseEnv(completed))).to.have.members(['SERVICE_KEY', 'ADMIN_KEY'])
  })
})

describe('docs/configuration.md', () => {
  it('is up to date with the settings; otherwise run npm run env-example', () => {
    expect(readFileSync('docs/configuration.md', 'utf8')).to.equal(makeConfigurationPage())
  })
})
