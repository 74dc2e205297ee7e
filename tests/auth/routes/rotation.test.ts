// Key rotation: what each key opens, and how an operator sees that the previous key is no longer used.
import { expect } from 'chai'
import { ask } from '../../support/client.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import { logIn } from '../../support/factories.ts'
import { closeServers, openTestAuth, startAuth } from '../../support/servers.ts'
import { freshPlace } from '../../support/stores.ts'

const newKey = 'CANARY-new-admin-key-5550123456789-zyxwvutsrq'
const previousServiceKey = 'CANARY-previous-service-key-0123456789-abcdef'
const rotating = { ADMIN_KEY: newKey, ADMIN_KEY_PREVIOUS: adminKey, SERVICE_KEY_PREVIOUS: previousServiceKey }

describe('a key that is rotated', () => {
  afterEach(closeServers)

  /** The statuses of routes that need the admin key, and of routes that also accept the service key. */
  async function statusesOf(internalUrl: string, key: string) {
    const admin = [
      ask('GET', `${internalUrl}/tokens`, key),
      ask('POST', `${internalUrl}/tokens`, key, { kind: 'fixed', ttlSeconds: 60 }),
      ask('GET', `${internalUrl}/admin/users`, key),
      ask('DELETE', `${internalUrl}/tokens/expired`, key),
      ask('HEAD', `${internalUrl}/events`, key),
    ]
    const verdicts = [ask('POST', `${internalUrl}/validateToken`, key, { token: 'x' })]
    const statuses = async (answers: typeof admin) => (await Promise.all(answers)).map(({ status }) => status)
    return { admin: await statuses(admin), verdicts: await statuses(verdicts) }
  }

  it('opens the same routes as ADMIN_KEY and as ADMIN_KEY_PREVIOUS, until the previous one is removed', async () => {
    const during = await startAuth({ env: rotating })
    for (const key of [newKey, adminKey]) {
      expect(await statusesOf(during.internalUrl, key)).to.deep.equal({
        admin: [200, 201, 200, 200, 200],
        verdicts: [200],
      })
    }
    const { ADMIN_KEY_PREVIOUS: _, ...rotated } = rotating
    const after = await startAuth({ env: rotated })
    expect(await statusesOf(after.internalUrl, adminKey)).to.deep.equal({
      admin: [401, 401, 401, 401, 401],
      verdicts: [401],
    })
  })

  it('opens no more as SERVICE_KEY_PREVIOUS than as SERVICE_KEY', async () => {
    const { internalUrl } = await startAuth({ env: rotating })
    for (const key of [serviceKey, previousServiceKey]) {
      expect(await statusesOf(internalUrl, key)).to.deep.equal({ admin: [401, 401, 401, 401, 401], verdicts: [200] })
    }
  })

  it('appears in the log as the name of its setting', async () => {
    const { url, internalUrl, lines } = await startAuth({ env: rotating })
    const userId = (await ask('GET', `${url}/users/me`, await logIn(url))).body['id']
    for (const key of [newKey, adminKey]) {
      expect((await ask('DELETE', `${internalUrl}/admin/users/${userId}/sessions`, key)).status).to.equal(204)
    }
    for (const event of ['sessions_revoked', 'admin_action']) {
      const by = lines.filter(line => line.event === event).map(line => line['by'])
      expect(by, event).to.deep.equal(['ADMIN_KEY', 'ADMIN_KEY_PREVIOUS'])
    }
  })

  it('is counted under the name of its setting', async () => {
    const { internalUrl } = await startAuth({ env: rotating })
    for (const key of [newKey, newKey, adminKey, serviceKey, previousServiceKey, previousServiceKey]) {
      await ask('POST', `${internalUrl}/validateToken`, key, { token: 'x' })
    }
    const metrics = await (await fetch(`${internalUrl}/metrics`)).text()
    expect(metrics.match(/^latchkey_key_uses_total.*$/gm)).to.have.members([
      'latchkey_key_uses_total{key="ADMIN_KEY"} 2',
      'latchkey_key_uses_total{key="ADMIN_KEY_PREVIOUS"} 1',
      'latchkey_key_uses_total{key="SERVICE_KEY"} 1',
      'latchkey_key_uses_total{key="SERVICE_KEY_PREVIOUS"} 2',
    ])
  })

  it('keeps token-provider tokens, which depend on ADMIN_KEY, valid before, during and after', async () => {
    const place = await freshPlace('sqlite')
    const { ADMIN_KEY_PREVIOUS: _, ...rotated } = rotating
    const steps = [
      { ADMIN_KEY: adminKey },
      { ADMIN_KEY: adminKey, ADMIN_KEY_PREVIOUS: newKey }, // the first of several processes is restarted
      rotating,
    ]
    const env = { TOKEN_STORE_URL: place.url, DIALECTS: 'token-provider:0', TOKEN_EXPIRATION_TIME: '600' }
    const open = async (keys: Record<string, string>) => {
      const { service } = await openTestAuth({ env: { ...env, ...keys } })
      return String((await service.listen())['tokenProvider'])
    }
    const isValid = async (url: string, uuid: string) =>
      (await ask('GET', `${url}/verify_token`, uuid)).body['valid'] as boolean
    const issued: string[] = []
    let url = ''
    for (const keys of steps) {
      url = await open(keys)
      issued.push(String((await ask('POST', `${url}/generate_token`)).body['token']))
      expect(await Promise.all(issued.map(uuid => isValid(url, uuid)))).to.not.include(false)
    }
    // Without the previous key only tokens that were made with the new key are valid.
    url = await open(rotated)
    expect(await Promise.all(issued.map(uuid => isValid(url, uuid)))).to.deep.equal([false, false, true])
    await closeServers()
    await place.remove()
  })

  it('does not affect sessions, which do not depend on a key', async () => {
    const place = await freshPlace('sqlite')
    const before = await startAuth({ env: { TOKEN_STORE_URL: place.url } })
    const token = await logIn(before.url, demo)
    const after = await startAuth({ env: { TOKEN_STORE_URL: place.url, ...rotating } })
    expect((await ask('GET', `${after.url}/users/me`, token)).body).to.include({ username: demo.username })
    await closeServers()
    await place.remove()
  })
})
