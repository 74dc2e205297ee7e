// docs/operations.md compared with the metrics of the services and the settings.
import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { logIn } from '../support/factories.ts'
import { closeServers, startAuth, startBusiness } from '../support/servers.ts'

const text = readFileSync('docs/operations.md', 'utf8')

describe('docs/operations.md', () => {
  after(closeServers)

  it('names only metrics and labels that the services expose', async () => {
    const { url, internalUrl } = await startAuth()
    const business = await startBusiness(internalUrl)
    await fetch(`${business.url}/data`, { headers: { token: await logIn(url), connection: 'close' } })
    const pages = await Promise.all(
      [internalUrl, business.internalUrl].map(async address => (await fetch(`${address}/metrics`)).text()),
    )
    const shown = pages.join('\n')
    const names = new Set([...text.matchAll(/\b(?:latchkey|nodejs)_[a-z0-9_]*[a-z0-9]/g)].map(([name]) => name))
    const tables = ['latchkey_users', 'latchkey_tokens', 'latchkey_floors']
    for (const name of names) {
      if (!tables.includes(name)) expect(shown, name).to.include(`# TYPE ${name.replace(/_(count|bucket)$/, '')} `)
    }
    expect(names.size).to.be.above(10)
    for (const [, label] of text.matchAll(/_(?:count|total|bucket)\{(\w+)[!=]/g)) expect(shown).to.include(`${label}="`)
  })

  it('names only settings that exist', () => {
    const settings = readFileSync('.env.example', 'utf8')
    const named = [...text.matchAll(/`([A-Z]+(?:_[A-Z]+)+)[`=]/g)].map(([, name]) => name as string)
    const others = ['NODE_EXTRA_CA_CERTS', 'NAME_FILE', 'TOKEN_KEYS_FILE']
    for (const name of named) if (!others.includes(name)) expect(settings, name).to.include(`#${name}=`)
  })
})
