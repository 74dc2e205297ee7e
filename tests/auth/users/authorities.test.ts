// Changes to what a user may do, which are written in two steps.
import { expect } from 'chai'
import { openUserStore } from '../../../services/auth/stores/index.ts'
import { type Authority, noAuthority } from '../../../services/auth/stores/tokenPort.ts'
import type { UserRecord, UserStore } from '../../../services/auth/stores/userPort.ts'
import { type AuthorityEvent, createAuthorities } from '../../../services/auth/users/authorities.ts'
import { newUserAt } from '../../support/storeFixtures.ts'

describe('authorities', () => {
  let users: UserStore
  let user: UserRecord
  let mirrored: Map<string, Authority>
  let failures = 0
  const events: AuthorityEvent[] = []
  const tokens = {
    async setAuthority(userId: string, authority: Authority) {
      if (failures-- > 0) throw new Error('the token store is down')
      if (authority.version > (mirrored.get(userId) ?? noAuthority).version) mirrored.set(userId, authority)
    },
  }
  const open = () => createAuthorities({ users, tokens, emit: event => events.push(event) })

  beforeEach(async () => {
    users = await openUserStore('memory:')
    user = newUserAt(1)
    await users.insert(user)
    mirrored = new Map()
    failures = 0
    events.length = 0
  })

  it('reach the token store before the call resolves', async () => {
    const changed = await open().change(user.id, { roles: ['admin'] })
    const authority = { version: 1, roles: ['admin'], paused: false, rate: null }
    expect(changed?.authority).to.deep.equal(authority)
    expect(mirrored.get(user.id)).to.deep.equal(authority)
    expect(await users.findUnmirrored(10)).to.deep.equal([])
    expect(events).to.deep.equal([{ type: 'roles_changed', userId: user.id, roles: ['admin'] }])
  })

  it('leave what they do not name', async () => {
    const authorities = open()
    await authorities.change(user.id, { roles: ['admin'] })
    await authorities.change(user.id, { paused: true })
    expect(mirrored.get(user.id)).to.deep.equal({ version: 2, roles: ['admin'], paused: true, rate: null })
    await authorities.change(user.id, { roles: [] })
    expect(mirrored.get(user.id)).to.deep.equal({ version: 3, roles: [], paused: true, rate: null })
    expect(events.map(({ type }) => type)).to.deep.equal(['roles_changed', 'user_paused', 'roles_changed'])
  })

  it('reject if the token store does not answer, and are completed by the next round', async () => {
    failures = 1
    const outcome = await open()
      .change(user.id, { roles: ['admin'] })
      .catch(error => error.message)
    expect(outcome).to.equal('the token store is down')
    expect(mirrored.size).to.equal(0)
    expect(events, 'it is not over').to.deep.equal([])
    await open().mirrorAll()
    expect(mirrored.get(user.id)).to.deep.include({ version: 1, roles: ['admin'], rate: null })
    expect(await users.findUnmirrored(10)).to.deep.equal([])
  })

  it('are all made if two calls race, each on top of the other', async () => {
    const authorities = open()
    await Promise.all([
      authorities.change(user.id, { roles: ['admin'] }),
      authorities.change(user.id, { paused: true }),
      authorities.change(user.id, { paused: true }),
    ])
    expect(mirrored.get(user.id)).to.deep.equal({ version: 3, roles: ['admin'], paused: true, rate: null })
  })

  it('emit the end of a pause', async () => {
    await open().change(user.id, { paused: false })
    expect(events).to.deep.equal([{ type: 'user_resumed', userId: user.id }])
  })

  it('are completed by a repeated call too', async () => {
    failures = 1
    await open()
      .change(user.id, { roles: [] })
      .catch(() => {})
    await open().change(user.id, { roles: [] })
    expect(mirrored.get(user.id)).to.deep.include({ version: 2, roles: [], rate: null })
    expect(await users.findUnmirrored(10)).to.deep.equal([])
  })

  it('change no user who does not exist or is being deleted', async () => {
    expect(await open().change('nobody', { paused: true })).to.equal(null)
    await users.update(user.id, 1, { credentialVersion: 2, deletedAt: 5 })
    expect(await open().change(user.id, { paused: true })).to.equal(null)
    expect(mirrored.size).to.equal(0)
  })

  it('complete those of thousands of users', async () => {
    for (let i = 0; i < 2500; i++)
      await users.insert(newUserAt(1, { authority: { version: 1, roles: [`r${i}`], paused: false, rate: null } }))
    await open().mirrorAll()
    expect(mirrored.size).to.equal(2500)
    expect(await users.findUnmirrored(10)).to.deep.equal([])
  })
})
