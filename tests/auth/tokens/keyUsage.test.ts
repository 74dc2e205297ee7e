// The token store that counts the uses of keys.
import { expect } from 'chai'
import { openTokenStore, openUsageStore } from '../../../services/auth/stores/index.ts'
import type { TokenRecord, TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import type { UsageStore } from '../../../services/auth/stores/usagePort.ts'
import { countingUsage } from '../../../services/auth/tokens/keyUsage.ts'
import { canaryPurpose } from '../../../services/auth/tokens/refusals.ts'
import { newTokenAt, toMessage, unlimited } from '../../support/storeFixtures.ts'

const start = Date.UTC(2027, 0, 15)
const day = 86_400_000

describe('a token store that counts the uses of keys', () => {
  let usage: UsageStore
  let store: TokenStore

  beforeEach(async () => {
    usage = await openUsageStore('memory:', 1)
    store = countingUsage(await openTokenStore('memory:'), usage)
  })

  async function inserted(members: Partial<TokenRecord> = {}) {
    const made = newTokenAt(start, { kind: 'fixed', userId: 'user-1', ...members })
    expect(await store.insert(made.ref, made.token, unlimited, start)).to.equal('inserted')
    return made.ref
  }

  it('counts nothing of other tokens, and does not need the usage store for them', async () => {
    const session = await inserted({ kind: 'sliding' })
    const ofSession = await inserted({ parent: { id: session.id, scope: null, name: null } })
    await usage.close()
    const found = await store.touch([session, ofSession, { ...session, hash: 'another' }], start, null)
    expect(found.map(token => token !== null)).to.deep.equal([true, true, false])
  })

  it('rejects if it can count for none of the tokens, and then answers for none', async () => {
    const key = await inserted({ name: 'deploy' })
    await usage.close()
    expect(await store.touch([key, key], start, null).then(() => 'resolved', toMessage)).to.equal('the store is closed')
    expect(await store.look([key], start, null)).to.deep.include.members([(await store.findByUser('user-1', start))[0]])
  })

  it('answers for a canary although its use cannot be counted, so that the alarm is raised', async () => {
    const canary = await inserted({ name: 'bait', purpose: canaryPurpose })
    await store.touch([canary], start, canaryPurpose)
    expect(await usage.read(canary.id, 'hour', start)).to.deep.equal([{ startsAt: start, count: 1, delegatedCount: 0 }])
    await usage.close()
    const [found] = await store.touch([canary], start, canaryPurpose)
    expect(found).to.include({ id: canary.id, refreshCount: 2 })
  })

  it('answers for other tokens although the usage store hangs', async () => {
    const key = await inserted({ name: 'deploy' })
    const session = await inserted({ kind: 'sliding' })
    const hanging = countingUsage(store, { ...usage, add: () => new Promise(() => {}) }, 1)
    const [ofKey, ofSession] = await hanging.touch([key, session], start, null)
    expect(ofKey).to.equal('unavailable')
    expect(ofSession).to.include({ id: session.id })
    expect(await hanging.touch([key], start, null).then(() => 'resolved', toMessage)).to.equal(
      'The usage store did not answer within 1 ms.',
    )
  })

  it('counts a look and a touch of a session not at all', async () => {
    const key = await inserted({ name: 'deploy' })
    const session = await inserted({ kind: 'sliding' })
    await store.look([key], start, null)
    await store.touchSession(session, start)
    expect(await usage.read(key.id, 'hour', start)).to.deep.equal([])
  })

  it('sweeps old buckets with the tokens', async () => {
    const key = await inserted({ name: 'deploy', expiresAt: start + 100 * day, absoluteExpiresAt: start + 100 * day })
    await store.touch([key], start, null)
    for (;;) if ((await store.deleteExpired(start + 9 * day, 100)).done) break
    expect(await usage.read(key.id, 'hour', start)).to.deep.equal([])
    expect((await store.look([key], start + 9 * day, null))[0]).to.include({ id: key.id })
  })

  it('sweeps tokens although old buckets cannot be removed', async () => {
    await inserted()
    await usage.close()
    expect(await store.deleteExpired(start + day, 100)).to.deep.equal({ removed: 1, done: true })
  })
})
