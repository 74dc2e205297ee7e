// npm run users if the sessions or the users are in the memory of a running Auth.
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { expect } from 'chai'
import { accountLimits } from '../../services/auth/defence/throttles.ts'
import { post } from '../support/client.ts'
import { adminKey, demo, serviceKey } from '../support/credentials.ts'
import { logIn } from '../support/factories.ts'
import { freePort } from '../support/freePort.ts'
import { startAuth } from '../support/servers.ts'
import { until } from '../support/until.ts'
import {
  fileOf,
  fresh,
  freshFolder,
  isLive,
  linesOf,
  password,
  plant,
  removeLeftovers,
  rolesOf,
  run,
  type Settings,
  usersOf,
} from '../support/usersCommand.ts'

describe('npm run users, beside a running Auth', () => {
  after(removeLeftovers)

  describe('with the sessions in the memory of Auth', () => {
    it('ends them at once through Auth, but cannot list them', async () => {
      const url = await fresh('sqlite')
      const { url: auth, internalUrl } = await startAuth({ env: { USER_STORE_URL: url } })
      const settings = { USER_STORE_URL: url, AUTH_INTERNAL_URL: internalUrl, ADMIN_KEY: adminKey }
      await plant(url, [{ username: 'alice' }])
      const alice = { username: 'alice', password }
      const listed = await run(settings, ['sessions', 'alice'])
      expect(listed).to.include({ code: 1, stdout: '' })
      expect(listed.stderr).to.match(/^The sessions are in the memory of Auth .*\n$/)
      for (const args of [
        ['disable', 'alice'],
        ['sessions', 'alice', '--end'],
        ['delete', 'alice', '--yes'],
      ]) {
        const token = await logIn(auth, alice)
        expect(await run(settings, args), args[0] as string).to.include({ code: 0, stderr: '' })
        expect(await isLive(internalUrl, token), args[0] as string).to.equal(false)
        if (args[0] === 'disable') {
          expect((await post(`${auth}/login`, alice)).status).to.equal(401)
          await run(settings, ['enable', 'alice'])
        }
      }
      expect((await usersOf(url)).map(({ username }) => username)).to.deep.equal(['demo@example.com'])
    })

    it('changes roles and pauses through Auth, which obeys at once, and emits one event for each', async () => {
      const url = await fresh('sqlite')
      const {
        url: auth,
        internalUrl,
        lines,
      } = await startAuth({ env: { USER_STORE_URL: url, TOKEN_TTL_SECONDS: '600' } })
      const settings = { USER_STORE_URL: url, AUTH_INTERNAL_URL: internalUrl, ADMIN_KEY: adminKey }
      await plant(url, [{ username: 'alice' }])
      const token = await logIn(auth, { username: 'alice', password })
      for (const [args, expected] of [
        [['roles', 'alice', '--add', 'admin'], ['admin']],
        [['pause', 'alice'], null],
        [['resume', 'alice'], ['admin']],
        [['roles', 'alice', '--remove', 'admin'], []],
        [['passwd', 'alice', '--password-stdin'], null],
      ] as const) {
        const done = await run(settings, [...args], { input: `${password} anew` })
        expect(done, args.join(' ')).to.include({ code: 0, stderr: '' })
        expect(await rolesOf(internalUrl, token), args.join(' ')).to.deep.equal(expected)
      }
      const events = lines.map(({ event }) => event).filter(event => /^(roles|user)_/.test(String(event)))
      expect(events.slice(events.indexOf('roles_changed'))).to.deep.equal([
        'roles_changed',
        'user_paused',
        'user_resumed',
        'roles_changed',
      ])
    })

    it('leaves the rest to Auth if nothing listens, and reports it in one line', async () => {
      const url = await fresh('sqlite')
      const env = { USER_STORE_URL: url, SWEEP_INTERVAL_SECONDS: '1' }
      const { url: auth, internalUrl } = await startAuth({ env })
      await plant(url, [{ username: 'alice' }, { username: 'bob' }])
      const alice = await logIn(auth, { username: 'alice', password })
      const bob = await logIn(auth, { username: 'bob', password })
      const nobody = `http://127.0.0.1:${await freePort()}`
      const settings = { ...env, AUTH_INTERNAL_URL: nobody, ADMIN_KEY: adminKey }
      const disabled = await run(settings, ['disable', 'alice'])
      expect(disabled.code, disabled.stderr).to.equal(0)
      expect(disabled.stderr)
        .to.match(/^.* within 3 seconds.*\n$/)
        .and.to.include(`nothing listens at ${nobody}.`)
      const deleted = await run({ ...settings, ADMIN_KEY: undefined }, ['delete', 'bob', '--yes'])
      expect(deleted.code, deleted.stderr).to.equal(0)
      expect(deleted.stderr).to.match(/^.*ADMIN_KEY is not set.*\n$/)
      await plant(url, [{ username: 'carol' }])
      const carol = await logIn(auth, { username: 'carol', password })
      const given = await run(settings, ['roles', 'carol', '--add', 'admin'])
      expect(given).to.include({ code: 0, stdout: 'carol: admin\n' })
      expect(given.stderr).to.match(/^The tokens are in the memory of Auth, .* within 3 seconds.*\n$/)
      await until(async () => (await rolesOf(internalUrl, carol))?.join() === 'admin')
      for (const token of [alice, bob]) await until(async () => !(await isLive(internalUrl, token)))
      expect((await usersOf(url)).map(({ username }) => username)).to.not.include('bob')
    })

    it('explains each failure: another key, another store, an invalid response, no response', async () => {
      const url = await fresh('sqlite')
      await plant(
        url,
        ['a', 'b', 'c', 'd'].map(username => ({ username })),
      )
      const other = await startAuth()
      const dumb = createServer(socket => socket.end('HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n')).listen(
        0,
        '127.0.0.1',
      )
      await once(dumb, 'listening')
      const dumbUrl = `http://127.0.0.1:${(dumb.address() as { port: number }).port}`
      const cases: [Settings, RegExp][] = [
        [{ AUTH_INTERNAL_URL: other.internalUrl, ADMIN_KEY: serviceKey }, /refuses this ADMIN_KEY/],
        [{ AUTH_INTERNAL_URL: other.internalUrl, ADMIN_KEY: adminKey }, /uses another store, so no token obeys yet/],
        [{ AUTH_INTERNAL_URL: dumbUrl, ADMIN_KEY: adminKey }, /answered 500/],
        [{ AUTH_INTERNAL_URL: 'http://nowhere.invalid', ADMIN_KEY: adminKey }, /cannot be reached/],
      ]
      const runs = cases.map(async ([settings, expected], index) => {
        const username = 'abcd'.charAt(index)
        const { code, stdout, stderr } = await run({ USER_STORE_URL: url, ...settings }, ['disable', username])
        expect({ code, stdout }).to.deep.equal({ code: 1, stdout: '' })
        expect(stderr).to.match(expected).and.to.include('The user has been changed').and.to.not.include(adminKey)
        // These two messages would contradict each other: an Auth with another store cannot complete the change.
        if (/another store/.test(stderr)) expect(stderr).to.not.include('obey yet; Auth will')
      })
      await Promise.all(runs)
      dumb.close()
      for (const { disabledAt } of await usersOf(url)) expect(disabledAt).to.be.a('number')
    })
  })

  describe('with the users in the memory of Auth', () => {
    /** Like the folder of ./startServer: the key and the port are in .env, and no store is set. */
    function folderOf(internalUrl: string): string {
      const folder = freshFolder()
      writeFileSync(join(folder, '.env'), `ADMIN_KEY=${adminKey}\nAUTH_INTERNAL_PORT=${new URL(internalUrl).port}\n`)
      return folder
    }
    const development = { NODE_ENV: '', SERVICE_KEY: undefined, ADMIN_KEY: undefined, USER_STORE_URL: undefined }

    it('adds, lists, disables at once, enables, ends sessions and deletes through the running Auth', async () => {
      const { url: auth, internalUrl } = await startAuth({ env: { TOKEN_TTL_SECONDS: '600' } })
      const cwd = folderOf(internalUrl)
      const users = (args: string[], input = '') => run(development, args, { cwd, input })
      const added = await users(['add', 'Alice', '--password-stdin'], `${password}\n`)
      expect(added).to.include({ code: 0, stderr: '' })
      expect(added.stdout).to.match(/^[\w-]{36}\n$/)
      const alice = { username: 'alice', password }
      const token = await logIn(auth, alice)
      const again = await users(['add', 'alice', '--password-stdin'], `${password}\n`)
      expect(again).to.include({ code: 1, stdout: '', stderr: 'This username is taken.\n' })
      const weak = await users(['add', 'bob', '--password-stdin'], 'passwordpassword\n')
      expect(weak).to.include({ code: 1, stdout: '' })
      expect(weak.stderr).to.match(/^password: .*\n$/)

      expect(await users(['disable', 'ALICE'])).to.include({ code: 0, stderr: '' })
      expect(await isLive(internalUrl, token)).to.equal(false)
      const listed = (await users(['list', '--json'])).stdout
      const states = linesOf(listed).map(line => JSON.parse(line) as { username: string; state: string })
      expect(states.find(({ username }) => username === 'alice')).to.include({ state: 'disabled' })
      expect((await users(['enable', 'alice'])).code).to.equal(0)
      const second = await logIn(auth, alice)
      expect((await users(['roles', 'alice', '--add', 'editor'])).stdout).to.equal('alice: editor\n')
      expect(await rolesOf(internalUrl, second)).to.deep.equal(['editor'])
      expect((await users(['roles', 'alice'])).stdout).to.equal('alice: editor\n')
      expect(await users(['pause', 'alice'])).to.include({ code: 0, stderr: '' })
      expect(await rolesOf(internalUrl, second)).to.equal(null)
      expect((await users(['resume', 'alice'])).code).to.equal(0)
      expect(await rolesOf(internalUrl, second)).to.deep.equal(['editor'])
      const guessable = await users(['passwd', 'alice', '--password-stdin'], 'passwordpassword')
      expect(guessable).to.include({ code: 1, stdout: '' })
      expect(guessable.stderr).to.match(/^password: /)
      alice.password = 'CANARY lantern in a canoe'
      expect(await users(['passwd', 'alice', '--password-stdin'], alice.password)).to.include({ code: 0, stderr: '' })
      expect(await isLive(internalUrl, second)).to.equal(false)
      const third = await logIn(auth, alice)
      expect((await users(['sessions', 'alice', '--end'])).code).to.equal(0)
      expect(await isLive(internalUrl, third)).to.equal(false)
      expect((await users(['attributes', 'alice', '--set', '{"plan":"pro"}'])).stdout).to.equal('{"plan":"pro"}\n')
      expect((await users(['attributes', 'alice'])).stdout).to.equal('{"plan":"pro"}\n')
      const sent = await users(['email', 'alice', '--set', 'alice@mail.example'])
      expect(sent.stdout).to.equal('alice: alice@mail.example\n')
      const taken = await users(['rename', 'alice', demo.username])
      expect(taken).to.include({ code: 1, stdout: '', stderr: 'This username is taken.\n' })
      const fourth = await logIn(auth, alice)
      expect((await users(['rename', 'alice', 'Bob'])).stdout).to.equal('alice is now bob.\n')
      expect(await isLive(internalUrl, fourth)).to.equal(false)
      await logIn(auth, { ...alice, username: 'bob' })
      expect((await users(['delete', 'bob', '--yes'])).code).to.equal(0)
      expect((await post(`${auth}/login`, alice)).status).to.equal(401)
      expect(await users(['disable', 'alice'])).to.include({ code: 1, stderr: 'There is no user alice.\n' })
    })

    it('adds a service account through the running Auth, which refuses to give it a password', async () => {
      const { internalUrl } = await startAuth()
      const cwd = folderOf(internalUrl)
      const users = (args: string[], input = '') => run(development, args, { cwd, input })
      expect(await users(['add', 'worker', '--service'])).to.include({ code: 0, stderr: '' })
      expect((await users(['list'])).stdout).to.match(/ {2}active {9}service {20}worker$/m)
      for (const args of [
        ['passwd', 'worker', '--password-stdin'],
        ['reset', 'worker'],
      ]) {
        const refused = await users(args, password)
        expect(refused, args.join(' ')).to.include({ code: 1, stdout: '' })
        expect(refused.stderr).to.equal('A service account has no password.\n')
      }
    })

    it('lists more users than fit on a page', async () => {
      const { url: auth, internalUrl } = await startAuth({ env: { REGISTRATION_LIMIT_PER_ADDRESS: '1000' } })
      for (let i = 0; i < 205; i++) {
        expect((await post(`${auth}/users`, { username: `user-${i}`, password })).status).to.equal(201)
      }
      const { stdout } = await run(development, ['list', '--json'], { cwd: folderOf(internalUrl) })
      expect(linesOf(stdout)).to.have.length(206)
    })

    it('reports that Auth must run, and that an import needs a durable store', async () => {
      const cwd = folderOf(`http://127.0.0.1:${await freePort()}`)
      for (const args of [['list'], ['disable', 'alice'], ['unlock', 'alice']]) {
        const { code, stderr } = await run(development, args, { cwd })
        expect(code, args.join()).to.equal(1)
        expect(stderr).to.match(/^.*othing listens at .*\n$/)
      }
      const imported = await run(development, ['import', fileOf('')], { cwd })
      expect(imported).to.include({ code: 1, stdout: '' })
      expect(imported.stderr).to.match(/^USER_STORE_URL: .*sqlite:path.*\n$/)
    })
  })

  describe('commands that need a running Auth', () => {
    for (const scheme of ['memory', 'sqlite']) {
      it(`unlocks a user, and prints a link to choose a password: users in ${scheme}`, async () => {
        const settings = { USER_STORE_URL: await fresh(scheme), ADMIN_KEY: adminKey }
        const { url: auth, internalUrl } = await startAuth({ env: settings, limitsPerAccount: accountLimits })
        const all = { ...settings, AUTH_INTERNAL_URL: internalUrl }
        await run(all, ['add', 'alice', '--password-stdin'], { input: `${password}\n` })
        const tryIt = async (typed: string) =>
          (await post(`${auth}/login`, { username: 'alice', password: typed })).status
        for (let i = 0; i < accountLimits.freeFailures; i++) expect(await tryIt('CANARY guess')).to.equal(401)
        expect(await tryIt(password)).to.equal(429)
        expect(await run(all, ['unlock', 'ALICE'])).to.include({ code: 0, stderr: '' })
        expect(await tryIt(password)).to.equal(200)

        const { code, stdout } = await run(all, ['reset', 'alice'], { secret: /#reset=\S+/ })
        expect(code).to.equal(0)
        const token = /^http.*\/account#reset=(\S+)\n$/.exec(stdout)?.[1]
        const chosen = 'CANARY gherkin on a plinth'
        expect((await post(`${auth}/password/reset`, { token, password: chosen })).status).to.equal(204)
        expect(await tryIt(chosen)).to.equal(200)
        expect(await run(all, ['unlock', 'nobody'])).to.include({ code: 1, stderr: 'There is no user nobody.\n' })
      })
    }
  })
})
