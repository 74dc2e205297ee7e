// The settings for other platforms in docs/deploy.md: each service accepts those of its column in production.
import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { authSettings, readAuthConfig } from '../../services/auth/config.ts'
import { businessSettings, readBusinessConfig } from '../../services/business/config.ts'
import { adminKey, serviceKey } from '../support/credentials.ts'

const [, section = ''] = readFileSync('docs/deploy.md', 'utf8').split('\n## Other platforms\n')
const platforms = section.split(/^### /m).slice(1)
const secrets = { SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey, NODE_ENV: 'production' }

/** The settings with a value in a text, such as `HOST=127.0.0.1`. */
const settingsIn = (text: string) =>
  Object.fromEntries([...text.matchAll(/`([A-Z_]+)=([^`]+)`/g)].map(([, name = '', value = '']) => [name, value]))

describe('docs/deploy.md, for other platforms', () => {
  for (const platform of platforms) {
    const [title = ''] = platform.split('\n')

    it(`${title}: both services accept their settings, and either share an address or have two`, () => {
      const row = platform.split('\n').find(line => line.startsWith('| settings |')) ?? ''
      const [, business = '', auth = ''] = row.split(' | ')
      const ofBusiness = settingsIn(business)
      const ofAuth = settingsIn(auth.replace(/\$\{\w+\}/, 'https://app.example.com'))
      expect(ofBusiness).to.not.deep.equal({})
      expect(Object.keys(businessSettings)).to.include.members(Object.keys(ofBusiness))
      expect(Object.keys(authSettings)).to.include.members(Object.keys(ofAuth))
      const config = readBusinessConfig({ ...secrets, ...ofBusiness })
      expect(config.authUrls[0]).to.match(/:3101$/)
      const { businessUrl } = readAuthConfig({ ...secrets, ...ofAuth })
      // With one address, Business forwards to Auth, whose pages call Business at the same address.
      expect(businessUrl === 'self').to.equal(config.forwardUrl !== null)
    })
  }

  it('describes three of them, and says that none was run', () => {
    expect(platforms).to.have.length(3)
    expect(section).to.include('**were not run**')
  })
})
