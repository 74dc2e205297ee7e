// A change of a user that fails or is killed between its two steps: the same call or the next start completes it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect } from 'chai'
import { instrument } from '../../../services/auth/observability/instrument.ts'
import { openTokenStore, openUserStore } from '../../../services/auth/stores/index.ts'
import type { TokenRef, TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import type { UserRecord, UserStore } from '../../../services/auth/stores/userPort.ts'
import { parseSecret } from '../../../services/auth/tokens/format.ts'
import { createTokens, type Tokens } from '../../../services/auth/tokens/tokens.ts'
import { openPasswords, type Passwords } from '../../../services/auth/users/passwords.ts'
import { createUsers, type UserEvent, type Users, type UsersOptions } from '../../../services/auth/users/users.ts'
import type { AppError } from '../../../shared/http/errors.ts'
import { authApi, phrases } from '../../support/authApi.ts'
import { hashThreads } from '../../support/hashThreads.ts'
import { closeServers, openTestAuth, startAuth } from '../../support/servers.ts'
import { freshPlace, schemesHere } from '../../support/stores.ts'

const schemes = await schemesHere(['memory', 'sqlite', 'postgres'])

const client = { address: '192.0.2.1' }
const owner = { ...client, account: 'somebody' }

describe('a change that is interrupted', () => {
  const now = () => 1_800_000_000_000
  const credentials = { username: 'ann@example.com', password: phrases.first }
  const change = { currentPassword: phrases.first, password: phrases.second }
  const closers: (() => Promise<void>)[] = []
  afterEach(async () => {
    for (const close of closers.splice(0)) await close()
  })
  let passwords: Passwords
  before(async () => {
    passwords = await openPasswords({ cost: 4, threads: hashThreads, maxQueue: 100, maxPerAccount: 1000 })
  })
  after(async () => {
    await closeServers()
    passwords.close()
  })

  interface UseCases {
    users: Users
    /** For the use cases of another process on the same stores. */
    options: UsersOptions
    tokens: Tokens
    store: UserStore
    tokenStore: TokenStore
    events: UserEvent[]
    user: UserRecord
    /** The secrets and ids of two sessions. */
    current: { secret: string; id: string }
    other: { secret: string; id: string }
    /** Rejects the next `times` calls that end a user's tokens. */
    fail(times: number): void
    /** Runs `job` once, just before a user's tokens end. */
    meanwhile(job: () => Promise<unknown>): void
    isLive(token: { secret: string }): Promise<boolean>
    logsIn(password: string): Promise<boolean>
  }

  async function openUseCases(scheme: string): Promise<UseCases> {
    const place = await freshPlace(scheme)
    const tokenStore = await openTokenStore(place.url)
    const store = await openUserStore(place.url)
    closers.push(async () => {
      await tokenStore.close()
      await store.close()
      await place.remove()
    })
    const events: UserEvent[] = []
    let failures = 0
    let job: (() => Promise<unknown>) | null = null
    const failing: TokenStore = {
      ...tokenStore,
      async raiseFloor(...args) {
        if (failures > 0) {
          failures--
          throw new Error('the token store is away')
        }
        const next = job
        job = null
        await next?.()
        return tokenStore.raiseFloor(...args)
      },
    }
    const tokens = createTokens({
      store: instrument(failing, 'tokens', null),
      now,
      ttlMs: 30_000,
      absoluteTtlMs: 43_200_000,
      limits: { perUser: 1000, total: 10_000 },
      emit: () => {},
    })
    const options: UsersOptions = {
      store,
      passwords,
      rules: { minLength: 15 },
      addressesOnly: false,
      revokeTokens: tokens.revokeByUser,
      now,
      emit: event => events.push(event),
      wait: async () => {},
    }
    const users = createUsers(options)
    const user = (await users.insert({
      username: credentials.username,
      passwordHash: await passwords.hash(credentials.password, owner),
    })) as UserRecord
    const issue = async () => {
      const { secret, token } = (await tokens.issueSession(user)) as NonNullable<
        Awaited<ReturnType<Tokens['issueSession']>>
      >
      return { secret, id: token.id }
    }
    return {
      users,
      options,
      tokens,
      store,
      tokenStore,
      events,
      user,
      current: await issue(),
      other: await issue(),
      fail: times => {
        failures = times
      },
      meanwhile: next => {
        job = next
      },
      isLive: async ({ secret }) => (await tokens.validateAll([secret], { purpose: null, touch: false }))[0] !== null,
      logsIn: async password => (await users.verify({ ...credentials, password }, client)).outcome === 'verified',
    }
  }

  const codeOf = (call: Promise<unknown>) =>
    call.then(
      () => 'resolved',
      (error: AppError) => error.code,
    )

  for (const scheme of ['memory', 'sqlite']) {
    describe(`at ${scheme}:`, () => {
      let at: UseCases
      beforeEach(async () => {
        at = await openUseCases(scheme)
      })

      const changePassword = () => at.users.changePassword(at.user.id, change, at.current.id, client)
      const remove = () => at.users.removeOwn(at.user.id, credentials.password, client)
      const told = (type: UserEvent['type']) => at.events.filter(event => event.type === type).length
      const live = async () => [await at.isLive(at.current), await at.isLive(at.other)]

      it('of a password rejects with unavailable, and repeating the call completes it', async () => {
        at.fail(2)
        for (let i = 0; i < 2; i++) {
          expect(await codeOf(changePassword())).to.equal('unavailable')
          expect(await at.logsIn(phrases.second)).to.equal(true)
          expect(await at.logsIn(phrases.first)).to.equal(false)
          expect(await live()).to.deep.equal([true, true])
        }
        expect(await changePassword()).to.have.nested.include({ outcome: 'changed', 'user.id': at.user.id })
        expect(await live()).to.deep.equal([false, false])
        expect(await at.store.findUnfinished(10)).to.deep.equal([])
        expect(await at.logsIn(phrases.second)).to.equal(true)
        expect(told('password_changed')).to.equal(1)
        expect(await changePassword()).to.include({ outcome: 'wrong_password' }) // the old password in this call is wrong now
      })

      it('of a password is completed without another call', async () => {
        at.fail(1)
        expect(await codeOf(changePassword())).to.equal('unavailable')
        await at.users.finishAll()
        expect(await live()).to.deep.equal([false, false])
        expect(await at.store.findUnfinished(10)).to.deep.equal([])
        expect(await at.logsIn(phrases.second)).to.equal(true)
        expect(told('password_changed')).to.equal(1)
      })

      it('of a password is not completed by a call with another new password', async () => {
        at.fail(1)
        expect(await codeOf(changePassword())).to.equal('unavailable')
        const guess = { currentPassword: phrases.first, password: phrases.wrong }
        expect(await at.users.changePassword(at.user.id, guess, at.other.id, client)).to.include({
          outcome: 'wrong_password',
        })
        expect(await at.logsIn(phrases.second)).to.equal(true)
        expect(await at.store.findUnfinished(10)).to.have.length(1)
      })

      it('of a password by a link rejects with unavailable, and repeating the call completes it', async () => {
        at.fail(1)
        const reset = () => at.users.resetPassword(at.user, phrases.second, client)
        expect(await codeOf(reset())).to.equal('unavailable')
        expect(await reset()).to.include({ outcome: 'changed' })
        expect(await live()).to.deep.equal([false, false])
        expect(await reset()).to.deep.equal({ outcome: 'stale' })
        expect(await at.logsIn(phrases.second)).to.equal(true)
        expect(told('password_changed')).to.equal(1)
      })

      it('of a username rejects with unavailable, and repeating the call completes it', async () => {
        const renamed = { currentPassword: phrases.first, username: 'Bob@example.com' }
        const renames = {
          renameOwn: () => at.users.renameOwn(at.user.id, renamed, client),
          rename: () => at.users.rename(at.user.id, renamed.username),
        }
        at.fail(2)
        for (const rename of [renames.renameOwn, renames.rename]) {
          expect(await codeOf(rename())).to.equal('unavailable')
          expect(await at.users.findByUsername('bob@example.com')).to.include({ id: at.user.id })
          expect(await live()).to.deep.equal([true, true])
        }
        expect(await renames.renameOwn()).to.have.nested.include({ outcome: 'changed', 'user.id': at.user.id })
        expect(await live()).to.deep.equal([false, false])
        expect(await at.store.findUnfinished(10)).to.deep.equal([])
        expect(told('username_changed')).to.equal(1)
      })

      it('of a username is completed without another call', async () => {
        at.fail(1)
        expect(await codeOf(at.users.rename(at.user.id, 'bob@example.com'))).to.equal('unavailable')
        await at.users.finishAll()
        expect(await live()).to.deep.equal([false, false])
        expect(await at.store.findUnfinished(10)).to.deep.equal([])
      })

      it('of a username by the user loses against a change of the password that comes between, and starts anew by an operator', async () => {
        const racing: UsersOptions = {
          ...at.options,
          store: {
            ...at.store,
            async rename(...args) {
              await changePassword()
              return at.store.rename(...args)
            },
          },
        }
        const own = { currentPassword: phrases.first, username: 'bob@example.com' }
        expect(await codeOf(createUsers(racing).renameOwn(at.user.id, own, client))).to.equal('conflict')
        expect(await at.store.findByUsername('bob@example.com')).to.equal(null)
        expect(await at.logsIn(phrases.second)).to.equal(true)
        let isFirst = true
        const once: UsersOptions = {
          ...at.options,
          store: {
            ...at.store,
            async rename(...args) {
              if (isFirst) await at.users.revokeSessions(at.user.id)
              isFirst = false
              return at.store.rename(...args)
            },
          },
        }
        expect(await createUsers(once).rename(at.user.id, 'bob@example.com')).to.include({ outcome: 'changed' })
        expect(await at.store.findByUsername('bob@example.com')).to.include({ credentialVersion: 4, endedVersion: 4 })
      })

      it('that deletes the account rejects with unavailable, and repeating the call completes it', async () => {
        at.fail(1)
        expect(await codeOf(remove())).to.equal('unavailable')
        expect(await at.logsIn(phrases.first)).to.equal(false)
        expect(await at.users.find(at.user.id)).to.equal(null)
        expect(await live()).to.deep.equal([true, true])
        expect(await at.users.removeOwn(at.user.id, phrases.wrong, client)).to.include({ outcome: 'wrong_password' })
        expect(await remove()).to.deep.equal({ outcome: 'removed' })
        expect(await live()).to.deep.equal([false, false])
        expect(await at.store.findById(at.user.id)).to.equal(null)
        expect(told('user_deleted')).to.equal(1)
      })

      it('that deletes the account is completed without another call, and frees the username only then', async () => {
        at.fail(1)
        expect(await codeOf(remove())).to.equal('unavailable')
        const next = { username: credentials.username, passwordHash: 'x' }
        expect(await at.users.insert(next)).to.equal(null)
        await at.users.finishAll()
        expect(await live()).to.deep.equal([false, false])
        expect(await at.store.findById(at.user.id)).to.equal(null)
        expect(told('user_deleted')).to.equal(1)
        expect((await at.users.insert(next))?.id).to.not.equal(at.user.id)
      })

      it('by the operator is completed by the same call, or without another call', async () => {
        at.fail(1)
        expect(await codeOf(at.users.revokeSessions(at.user.id))).to.equal('unavailable')
        expect(await at.users.revokeSessions(at.user.id)).to.equal(true)
        expect(await live()).to.deep.equal([false, false])
        at.fail(1)
        expect(await codeOf(at.users.remove(at.user.id))).to.equal('unavailable')
        expect(await at.users.remove(at.user.id)).to.equal(true)
        expect(await at.users.remove(at.user.id)).to.equal(false)
        expect(told('user_deleted')).to.equal(1)
      })

      it('ends the session that makes the next change, which may be one that had to end', async () => {
        at.fail(1)
        expect(await codeOf(at.users.revokeSessions(at.user.id))).to.equal('unavailable')
        expect(await changePassword()).to.have.nested.include({ outcome: 'changed', 'user.id': at.user.id })
        expect(await live()).to.deep.equal([false, false])
      })

      it('keeps no session for a repeated change that was completed long ago, while all sessions are ending', async () => {
        expect(await changePassword()).to.have.nested.include({ outcome: 'changed', 'user.id': at.user.id })
        expect(await live()).to.deep.equal([true, false])
        at.meanwhile(changePassword)
        expect(await at.users.revokeSessions(at.user.id)).to.equal(true)
        expect(await live()).to.deep.equal([false, false])
      })

      it('leaves no session to a disabled user, whatever the user requests in the meantime', async () => {
        for (const ask of [change, { currentPassword: phrases.wrong, password: phrases.second }]) {
          const user = (await at.users.find(at.user.id)) as UserRecord
          const session = await at.tokens.issueSession(user)
          at.fail(1)
          expect(await codeOf(at.users.disable(user.id))).to.equal('unavailable')
          await at.users.changePassword(user.id, ask, session?.token.id as string, client)
          await at.users.finishAll()
          expect(await at.isLive(session as { secret: string })).to.equal(false)
          expect(await at.users.enable(user.id)).to.equal(true)
        }
      })

      it('does not affect other users, nor changes that are under way in any process', async () => {
        const [looked, over] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
        const elsewhere = createUsers({
          ...at.options,
          wait() {
            looked.resolve()
            return over.promise
          },
        })
        let finishing: Promise<void> | undefined
        at.meanwhile(() => {
          finishing = elsewhere.finishAll()
          return Promise.race([looked.promise, finishing])
        })
        expect(await changePassword()).to.have.nested.include({ outcome: 'changed', 'user.id': at.user.id })
        over.resolve()
        await finishing
        expect(await live()).to.deep.equal([true, false])
      })

      it('does not affect a later change that is under way when an earlier one is completed', async () => {
        at.fail(1)
        expect(await codeOf(at.users.revokeSessions(at.user.id))).to.equal('unavailable')
        const waits: number[] = []
        const elsewhere = createUsers({
          ...at.options,
          async wait(ms) {
            waits.push(ms)
            if (waits.length > 1) return
            at.fail(1)
            expect(await codeOf(at.users.revokeSessions(at.user.id))).to.equal('unavailable')
          },
        })
        await elsewhere.finishAll()
        expect(await at.store.findUnfinished(10)).to.have.length(1)
        await elsewhere.finishAll()
        expect(await at.store.findUnfinished(10)).to.deep.equal([])
        expect(waits).to.deep.equal([2000, 2000])
      })
    })
  }

  it('is a conflict for a change or deletion that was verified with the old password and is written after it', async () => {
    const another = { currentPassword: phrases.first, password: phrases.third }
    for (const act of [
      (users: Users, { id }: UserRecord, keep: string) => users.changePassword(id, another, keep, client),
      (users: Users, { id }: UserRecord) => users.removeOwn(id, phrases.first, client),
    ]) {
      const at = await openUseCases('memory')
      const slow: Passwords = {
        ...passwords,
        async verify(...args) {
          const matches = await passwords.verify(...args)
          await at.users.changePassword(at.user.id, change, at.current.id, client)
          return matches
        },
      }
      const { store } = at
      const revokeTokens = at.tokens.revokeByUser
      const rules = { minLength: 15 }
      const rival = createUsers({ store, passwords: slow, rules, addressesOnly: false, revokeTokens, now, emit() {} })
      expect(await codeOf(act(rival, at.user, at.other.id))).to.equal('conflict')
      expect(await at.logsIn(phrases.second)).to.equal(true)
      expect([await at.isLive(at.current), await at.isLive(at.other)]).to.deep.equal([true, false])
    }
  })

  for (const scheme of schemes) {
    it(`gives no session to a log-in that was verified before it and would be issued after it, at ${scheme}:`, async () => {
      const at = await openUseCases(scheme)
      for (const act of [
        () => at.users.changePassword(at.user.id, change, at.current.id, client),
        () => at.users.revokeSessions(at.user.id),
        () => at.users.disable(at.user.id),
        () => at.users.remove(at.user.id),
      ]) {
        const verified = (await at.users.find(at.user.id)) as UserRecord
        await act()
        expect(await at.tokens.issueSession(verified)).to.equal(null)
      }
    })

    it(`leaves no session of an old password, however often they race, at ${scheme}:`, async () => {
      const at = await openUseCases(scheme)
      const lost = { issued: 0, refused: 0 }
      let current = phrases.first
      for (let round = 0; round < 12; round++) {
        let changed = false
        const issued: string[] = []
        const logIn = async () => {
          const result = await at.users.verify({ ...credentials, password: current }, client)
          const session = result.outcome === 'verified' && (await at.tokens.issueSession(result.user))
          if (session) issued.push(session.secret)
          else lost.refused++
        }
        const keepLoggingIn = async () => {
          // On a busy machine the database may exceed the deadline of the store; then no session begins either.
          while (!changed) expect(await codeOf(logIn())).to.be.oneOf(['resolved', 'unavailable'])
        }
        const rivals = Array.from({ length: 20 }, keepLoggingIn)
        await new Promise(setImmediate)
        const password = `${phrases.second} ${round}`
        const wanted = { currentPassword: current, password }
        const changePassword = () => codeOf(at.users.changePassword(at.user.id, wanted, at.current.id, client))
        let outcome = await changePassword()
        while (outcome === 'unavailable') outcome = await changePassword()
        expect(outcome).to.equal('resolved')
        const early = await at.tokens.validateAll(issued, { purpose: null, touch: false })
        expect(early.filter(token => token !== null)).to.deep.equal([])
        changed = true
        await Promise.all(rivals)
        const late = await at.tokens.validateAll(issued, { purpose: null, touch: false })
        expect(late.filter(token => token !== null)).to.deep.equal([])
        expect(await at.isLive(at.current)).to.equal(true)
        expect(await at.logsIn(password)).to.equal(true)
        lost.issued += issued.length
        current = password
      }
      expect(lost.issued).to.be.above(0)
      expect(lost.refused).to.be.above(0)
    })
  }

  describe('by a killed process', () => {
    /** The script of a process that runs Auth's use cases and is killed just before a user's tokens end. */
    const child = `
      const [root, url, act, id, keep, currentPassword, password] = process.argv.slice(1)
      const load = path => import(new URL('services/auth/' + path, root))
      const { openUserStore } = await load('stores/index.ts')
      const { startHashThreads } = await load('users/hashThreads.ts')
      const { openPasswords } = await load('users/passwords.ts')
      const { createUsers } = await load('users/users.ts')
      const users = createUsers({
        store: await openUserStore(url),
        passwords: await openPasswords({ cost: 4, threads: startHashThreads(1), maxQueue: 10, maxPerAccount: 1000 }),
        rules: { minLength: 15 },
        addressesOnly: false,
        revokeTokens: () => {
          process.kill(process.pid, 'SIGKILL')
          return new Promise(() => {})
        },
        now: Date.now,
        emit() {},
      })
      const client = { address: '192.0.2.1' }
      if (act === 'change') await users.changePassword(id, { currentPassword, password }, keep, client)
      else await users.removeOwn(id, currentPassword, client)
    `

    for (const act of ['change', 'remove']) {
      const what = act === 'change' ? 'the password is the new one' : 'the user is gone'
      it(`leaves nothing half done: ${what} and the old sessions have ended before the next process listens`, async () => {
        const place = await freshPlace('sqlite')
        closers.push(closeServers, place.remove)
        const env = { USER_STORE_URL: place.url, TOKEN_STORE_URL: place.url, TOKEN_TTL_SECONDS: '600' }
        const first = await startAuth({ env })
        const client = authApi(first)
        const { user, credentials, token } = await client.newUser()
        const tokens = [token, await client.issueTo(user.id), await client.issueTo(user.id, 'fixed')]
        await first.service.close()

        const root = new URL('../../../', import.meta.url).href
        const args = [root, place.url, act, user.id, token.slice(3, 17), phrases.first, phrases.second]
        const killed = spawn(process.execPath, ['-e', child, ...args], { stdio: 'inherit' })
        expect(await once(killed, 'exit')).to.deep.equal([null, 'SIGKILL'])

        const store = await openUserStore(place.url)
        const tokenStore = await openTokenStore(place.url)
        closers.unshift(store.close, tokenStore.close)
        const live = async () =>
          (
            await tokenStore.look(
              tokens.map(secret => parseSecret(secret) as TokenRef),
              Date.now(),
              null,
            )
          ).filter(found => found !== null).length
        expect(await store.findUnfinished(10)).to.have.length(1)
        expect(await live()).to.equal(3) // the process was killed between the two steps

        const { service, lines } = await openTestAuth({ env })
        expect(await store.findUnfinished(10)).to.deep.equal([])
        expect(await live()).to.equal(0)
        if (act === 'remove') expect(await store.findById(user.id)).to.equal(null)

        const { auth, authInternal } = await service.listen()
        const next = authApi({ url: auth as string, internalUrl: authInternal as string, lines })
        expect((await next.logIn(credentials)).status).to.equal(401)
        const renewed = await next.logIn({ ...credentials, password: phrases.second })
        expect(renewed.status).to.equal(act === 'change' ? 200 : 401)
        expect(await next.live(tokens)).to.deep.equal([])
      })
    }
  })
})
