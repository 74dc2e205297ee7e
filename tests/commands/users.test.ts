// npm run users, as an operator runs it: a real process on real stores, beside a real Auth or without one.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import bcrypt from 'bcryptjs'
import { expect } from 'chai'
import type { Verdict } from '../../packages/client/contract.ts'
import { accountLimits } from '../../services/auth/defence/throttles.ts'
import { openUserStore } from '../../services/auth/stores/index.ts'
import type { UserRecord } from '../../services/auth/stores/ports.ts'
import { searchForSecrets } from '../support/canaries.ts'
import { freePort } from '../support/freePort.ts'
import { adminKey, closeServers, logIn, post, serviceKey, startAuth, validate } from '../support/servers.ts'
import { freshPlace, type Place, query } from '../support/stores.ts'
import { until } from '../support/until.ts'

type Settings = Record<string, string | undefined>

const script = join(process.cwd(), 'commands/users/users.ts')
const password = 'CANARY horse battery staple'
const bcryptHash = bcrypt.hashSync(password, 4)
const escapeCharacter = '\x1b'
const places: Place[] = []
const folders: string[] = []
const cache = freshFolder() // the same program again and again

async function fresh(scheme: string): Promise<string> {
  const place = await freshPlace(scheme)
  places.push(place)
  return place.url
}

function freshFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-'))
  folders.push(folder)
  return folder
}

function fileOf(content: string | Buffer): string {
  const file = join(freshFolder(), 'htpasswd')
  writeFileSync(file, content)
  return file
}

const surroundings = { ...process.env, NODE_ENV: 'test', NODE_COMPILE_CACHE: cache }

interface RunOptions {
  input?: string | Buffer
  cwd?: string
  /** The one secret that it may print. */
  secret?: RegExp
  /** The process and what it has written to stderr, each time that there is more. */
  watch?: (child: ChildProcess, stderr: string) => void
}

async function run(
  settings: Settings,
  args: string[],
  { input = '', cwd = tmpdir(), secret = /$^/, watch }: RunOptions = {},
) {
  const env = { ...surroundings, ...settings }
  const child = spawn(process.execPath, [script, ...args], { env, cwd })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', chunk => {
    stdout += chunk
  })
  child.stderr.on('data', chunk => {
    stderr += chunk
    watch?.(child, stderr)
  })
  child.stdin.on('error', () => {}) // not every command reads it
  if (!watch) child.stdin.end(input)
  else child.stdin.write(input)
  const [code] = await once(child, 'close')
  searchForSecrets((stdout + stderr).replace(secret, ''), `what ${args.join(' ')} printed`)
  expect(stdout + stderr, args.join(' ')).to.not.match(/\n\s+at .*:\d+:\d+|Warning/)
  return { code, stdout, stderr }
}

/** What looks like a bcrypt hash and was made from no password. */
function anyHash(): string {
  return `$2y$10$${randomBytes(40).toString('base64').replaceAll('+', '.').replaceAll('=', '').slice(0, 53)}`
}

/** A user as an Auth, or an attacker with write access to the store, has put it there. */
async function plant(url: string, users: Partial<UserRecord>[]): Promise<void> {
  const store = await openUserStore(url)
  const rest = { credentialVersion: 1, endedVersion: 1, createdAt: 1_800_000_000_000, confirmedAt: 1 }
  for (const user of users) {
    const whole = { id: randomUUID(), username: randomUUID(), passwordHash: bcryptHash, ...rest, ...user }
    await store.insert({ disabledAt: null, deletedAt: null, ...whole })
  }
  await store.close()
}

async function usersOf(url: string): Promise<UserRecord[]> {
  const store = await openUserStore(url)
  const users = await store.list(null, 10_000)
  await store.close()
  return users
}

async function isLive(internalUrl: string, token: string): Promise<boolean> {
  return (await validate<Verdict>(internalUrl, { token, touch: false })).body.authenticated
}

const linesOf = (text: string) => text.split('\n').filter(line => line !== '')

describe('npm run users', () => {
  after(async () => {
    await closeServers()
    for (const place of places.splice(0)) await place.remove()
    for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
  })

  describe('on SQLite and PostgreSQL', () => {
    const onBoth = (test: (scheme: string) => Promise<void>) => async () => {
      await Promise.all(['sqlite', 'postgres'].map(test))
    }

    it(
      'adds, lists, disables at once, enables and deletes a user',
      onBoth(async scheme => {
        const url = await fresh(scheme)
        const settings = { USER_STORE_URL: url, TOKEN_STORE_URL: url }
        const added = await run(settings, ['add', 'Alice', '--password-stdin'], { input: `${password} \r\nmore\n` })
        expect(added).to.include({ code: 0, stderr: '' })
        expect(added.stdout).to.match(/^[\w-]{36}\n$/)
        const { url: auth, internalUrl } = await startAuth({ env: settings })
        const alice = { username: 'alice', password: `${password} ` }
        const token = await logIn(auth, alice)

        const listed = await run(settings, ['sessions', 'ALICE'])
        expect(listed.stdout).to.match(
          /^ID +CREATED +LAST USED +EXPIRES +REFRESHES\n\w{14}( {2}\d{4}-\d\d-\d\dT[\d:.]+Z){3} {2}0\n$/,
        )
        expect(await run(settings, ['disable', 'alice'])).to.include({ code: 0, stderr: '' })
        expect(await isLive(internalUrl, token)).to.equal(false)
        expect((await post(`${auth}/login`, alice)).status).to.equal(401)
        expect((await run(settings, ['list'])).stdout).to.match(/^[\w-]{36} {2}\S{24} {2}disabled {7}alice$/m)
        expect((await run(settings, ['enable', 'alice'])).code).to.equal(0)
        expect(await isLive(internalUrl, token)).to.equal(false)

        const second = await logIn(auth, alice)
        expect(await run(settings, ['delete', 'alice', '--yes'])).to.include({ code: 0, stderr: '' })
        expect(await isLive(internalUrl, second)).to.equal(false)
        expect((await post(`${auth}/login`, alice)).status).to.equal(401)
        expect((await usersOf(url)).map(({ username }) => username)).to.not.include('alice')
      }),
    )

    it(
      'imports 2,000 rows, tells of each bad one by its line, and of each only once that it is there',
      onBoth(async scheme => {
        const url = await fresh(scheme)
        const settings = { USER_STORE_URL: url }
        await plant(url, [{ username: 'taken@example.com' }])
        const rows = Array.from({ length: 2000 }, (_, index) => `user${index + 1}@example.com:${anyHash()}`)
        rows[0] = `Alice:${bcryptHash}`
        rows[1] = '# a comment: of no account'
        rows[2] = ''
        rows[3] = `a:name:with:colons:${anyHash()}`
        const bad: [number, string, string][] = []
        const spoil = (line: number, row: string, problem: string) => {
          rows[line - 1] = row
          bad.push([line, row, problem])
        }
        for (let line = 50; line <= 1950; line += 50) spoil(line, `u${line}:hunter2`, 'expected a bcrypt hash')
        spoil(7, 'nobody', 'expected username:hash')
        spoil(8, `:${anyHash()}`, 'username: expected 1 to 256 characters')
        spoil(9, `ev\x1b[2Jil:${anyHash()}`, 'username: expected no control characters')
        spoil(10, ` blank:${anyHash()}`, 'username: expected no blanks')
        spoil(11, `${'x'.repeat(257)}:${anyHash()}`, 'username: expected 1 to 256 characters')
        spoil(12, `ALICE:${anyHash()}`, 'the same username as in line 1')
        spoil(13, `Taken@example.com:${anyHash()}`, 'the username is taken')
        spoil(14, `u14:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=`, 'expected a bcrypt hash')
        spoil(15, `u15:$apr1$x$hunter2hunter2hunter2.`, 'expected a bcrypt hash')
        spoil(16, `u16:$2y$31$${anyHash().slice(7)}`, 'expected a bcrypt hash')
        spoil(2000, `user1999@example.com:${anyHash()}`, 'the same username as in line 1999')
        const file = fileOf(rows.join('\n'))
        const good = 2000 - 2 - bad.length

        const expectProblems = (stderr: string) => {
          const told = linesOf(stderr).map(line => /^line (\d+): (.*)$/.exec(line) ?? [line])
          const expected = bad.toSorted(([one], [other]) => one - other)
          expect(told.map(([, line]) => Number(line))).to.deep.equal(expected.map(([line]) => line))
          for (const [index, [, , problem]] of expected.entries()) expect(told[index]?.[2]).to.include(problem)
          expect(stderr)
            .to.not.match(/hunter2|\$2|SHA|apr1/)
            .and.to.not.include(escapeCharacter)
        }

        const dry = await run(settings, ['import', file, '--dry-run'])
        expect(dry.stdout).to.equal(`${good} would be imported, 0 already there, ${bad.length} refused\n`)
        expectProblems(dry.stderr)
        expect(await usersOf(url)).to.have.length(1)

        const first = await run(settings, ['import', file])
        expect(first.code).to.equal(1)
        expect(first.stdout).to.equal(`${good} imported, 0 already there, ${bad.length} refused\n`)
        expectProblems(first.stderr)

        const again = await run(settings, ['import', file])
        expect(again.stdout).to.equal(`0 imported, ${good} already there, ${bad.length} refused\n`)
        expectProblems(again.stderr)

        const listed = linesOf((await run(settings, ['list', '--json'])).stdout).map(line => JSON.parse(line))
        expect(new Set(listed.map(({ username }) => username)).size).to.equal(good + 1)
        expect(Object.keys(listed[0])).to.deep.equal(['id', 'username', 'createdAt', 'state'])
        const { url: auth } = await startAuth({ env: { USER_STORE_URL: url } })
        await logIn(auth, { username: 'alice', password })
      }),
    )

    it(
      'makes no store to look for users, nor for a dry run',
      onBoth(async scheme => {
        const url = await fresh(scheme)
        const dry = await run({ USER_STORE_URL: url }, ['import', '-', '--dry-run'], { input: `bob:${anyHash()}\n` })
        expect(dry.stdout).to.equal('1 would be imported, 0 already there, 0 refused\n')
        const found = await run({ USER_STORE_URL: url }, ['disable', 'bob'])
        expect(found.code).to.equal(1)
        expect(found.stderr).to.include('there is no store yet').and.to.include('There is no user bob.')
        if (scheme === 'sqlite') expect(existsSync(url.slice('sqlite:'.length))).to.equal(false)
        else expect(await query('select 1 from pg_tables where schemaname = current_schema()', url)).to.deep.equal([])
      }),
    )
  })

  describe('add', () => {
    it('asks twice on a terminal, which shows neither', async () => {
      const url = await fresh('sqlite')
      const typed = [`${password}\r`, `${password}\r`]
      const { code, screen } = await onTerminal(url, 'add alice', ['Password: ', 'Repeat password: '], typed)
      expect(code).to.equal(0)
      expect(screen).to.match(/^Password: \r?\nRepeat password: \r?\n[\w-]{36}\s*$/)
      const { url: auth } = await startAuth({ env: { USER_STORE_URL: url } })
      await logIn(auth, { username: 'alice', password })
    })

    it('adds nobody where the two differ, or Ctrl-C ends it', async () => {
      const url = await fresh('sqlite')
      const questions = ['Password: ', 'Repeat password: ']
      const differ = await onTerminal(url, 'add alice', questions, [`${password}\r`, `${password}!\r`])
      expect(differ.code).to.equal(1)
      expect(differ.screen).to.include('The passwords differ.').and.to.not.include(password)
      expect((await onTerminal(url, 'add alice', questions, [`${password}\r`, '\x03'])).code).to.equal(130)
      expect(await usersOf(url)).to.deep.equal([])
    })

    it('has the rules of POST /users, and says in a sentence what stands in the way', async () => {
      const url = await fresh('sqlite')
      await plant(url, [{ username: 'alice' }])
      const cases: [Settings, string, string | Buffer, RegExp][] = [
        [{}, 'Alice', password, /^This username is taken\.\n$/],
        [{}, 'bob', '', /^There is no password on stdin\.\n$/],
        [{}, 'bob', Buffer.from([0xff, 0xfe, 10]), /^The password is not UTF-8\.\n$/],
        [{ PASSWORD_MIN_LENGTH: '40' }, 'bob', password, /^password: expected at least 40 characters/],
        [{ EMAIL_CONFIRMATION: 'required' }, 'bob', password, /^username: expected an e-mail address\n$/],
      ]
      const runs = cases.map(async ([settings, username, input, expected]) => {
        const args = ['add', username, '--password-stdin']
        const { code, stdout, stderr } = await run({ USER_STORE_URL: url, ...settings }, args, { input })
        expect({ code, stdout }).to.deep.equal({ code: 1, stdout: '' })
        expect(stderr).to.match(expected)
      })
      await Promise.all(runs)
    })
  })

  describe('list', () => {
    const hostile = [
      'red\x1b[31m\x07',
      'title\x9d0;owned\x9c',
      'right\u202eto left',
      'two\nlines',
      'back\\slash "quoted"',
      '__proto__',
      'tag\u{e0041}',
      'line\u2028end',
      'José 🔑',
    ]

    it('tells the state of every user, and lets no escape sequence of a username reach the terminal', async () => {
      const url = await fresh('sqlite')
      const states = [{}, { confirmedAt: null }, { disabledAt: 1, confirmedAt: null }, { deletedAt: 1, disabledAt: 1 }]
      await plant(
        url,
        hostile.map((username, index) => ({ username, ...states[index] })),
      )
      const [table, json] = await Promise.all([
        run({ USER_STORE_URL: url }, ['list']),
        run({ USER_STORE_URL: url }, ['list', '--json']),
      ])
      for (const { stdout } of [table, json]) {
        expect(stdout.replaceAll('\n', '')).to.not.match(/\p{C}|\p{Zl}|\p{Zp}/u)
        expect(linesOf(stdout).length - hostile.length).to.be.within(0, 1)
        expect(stdout).to.include('José 🔑').and.to.not.include('$2')
      }
      const rows = linesOf(table.stdout).map(line => line.slice(64))
      expect(rows).to.include.members([
        'active         red\\u001b[31m\\u0007',
        'unconfirmed    title\\u009d0;owned\\u009c',
        'disabled       right\\u202eto left',
        'being deleted  two\\nlines',
        'active         back\\\\slash \\"quoted\\"',
        'active         tag\\udb40\\udc41',
      ])
      const usernames = linesOf(json.stdout).map(line => (JSON.parse(line) as UserRecord).username)
      expect(usernames).to.have.members(hostile)
    })

    it('ends quietly where its reader has seen enough', async () => {
      const url = await fresh('sqlite')
      await plant(url, Array(1000).fill({}))
      const child = spawn(
        'bash',
        ['-c', `"$0" "$1" list | head -n 2; echo "\${PIPESTATUS[0]}"`, process.execPath, script],
        {
          env: { ...surroundings, USER_STORE_URL: url },
          stdio: ['ignore', 'pipe', 'pipe'],
        },
      )
      let [output, errors] = ['', '']
      child.stdout.on('data', chunk => {
        output += chunk
      })
      child.stderr.on('data', chunk => {
        errors += chunk
      })
      await once(child, 'close')
      expect(errors).to.equal('')
      expect(linesOf(output)).to.have.length(3)
      expect(linesOf(output)[2]).to.equal('0')
    })
  })

  describe('with the sessions in the memory of Auth', () => {
    it('ends them at once by asking Auth, and cannot list them', async () => {
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

    it('leaves the rest to Auth where nothing listens, and says so in a line', async () => {
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
      for (const token of [alice, bob]) await until(async () => !(await isLive(internalUrl, token)))
      expect((await usersOf(url)).map(({ username }) => username)).to.not.include('bob')
    })

    it('says what stands in the way: another key, other users, an answer that is none, no answer', async () => {
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
        [{ AUTH_INTERNAL_URL: other.internalUrl, ADMIN_KEY: adminKey }, /uses another store, so no session has ended/],
        [{ AUTH_INTERNAL_URL: dumbUrl, ADMIN_KEY: adminKey }, /answered 500/],
        [{ AUTH_INTERNAL_URL: 'http://nowhere.invalid', ADMIN_KEY: adminKey }, /cannot be reached/],
      ]
      const runs = cases.map(async ([settings, expected], index) => {
        const username = 'abcd'.charAt(index)
        const { code, stdout, stderr } = await run({ USER_STORE_URL: url, ...settings }, ['disable', username])
        expect({ code, stdout }).to.deep.equal({ code: 1, stdout: '' })
        expect(stderr).to.match(expected).and.to.include('The user has been changed').and.to.not.include(adminKey)
        // One message, not two that contradict each other: that Auth will not try again.
        if (/another store/.test(stderr)) expect(stderr).to.not.include('Auth will end them')
      })
      await Promise.all(runs)
      dumb.close()
      for (const { disabledAt } of await usersOf(url)) expect(disabledAt).to.be.a('number')
    })
  })

  describe('with the users in the memory of Auth', () => {
    /** As in the folder of ./startServer: the key and the port are in .env, and no store is set. */
    function folderOf(internalUrl: string): string {
      const folder = freshFolder()
      writeFileSync(join(folder, '.env'), `ADMIN_KEY=${adminKey}\nAUTH_INTERNAL_PORT=${new URL(internalUrl).port}\n`)
      return folder
    }
    const development = { NODE_ENV: '', SERVICE_KEY: undefined, ADMIN_KEY: undefined, USER_STORE_URL: undefined }

    it('adds, lists, disables at once, enables, ends sessions and deletes through the running Auth', async () => {
      const { url: auth, internalUrl } = await startAuth()
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
      expect((await users(['sessions', 'alice', '--end'])).code).to.equal(0)
      expect(await isLive(internalUrl, second)).to.equal(false)
      expect((await users(['delete', 'alice', '--yes'])).code).to.equal(0)
      expect((await post(`${auth}/login`, alice)).status).to.equal(401)
      expect(await users(['disable', 'alice'])).to.include({ code: 1, stderr: 'There is no user alice.\n' })
    })

    it('lists more users than fit on a page', async () => {
      const { url: auth, internalUrl } = await startAuth({ env: { REGISTRATION_LIMIT_PER_ADDRESS: '1000' } })
      for (let i = 0; i < 205; i++) {
        expect((await post(`${auth}/users`, { username: `user-${i}`, password })).status).to.equal(201)
      }
      const { stdout } = await run(development, ['list', '--json'], { cwd: folderOf(internalUrl) })
      expect(linesOf(stdout)).to.have.length(206)
    })

    it('says that Auth must run, and that an import needs another store', async () => {
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

  describe('that only a running Auth can do', () => {
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

  describe('import', () => {
    it('takes what editors and attackers make of a file', async () => {
      const url = await fresh('sqlite')
      const file = fileOf(
        Buffer.concat([
          Buffer.from(`\ufeffalice:${bcryptHash}\r\n\r\n# comment\r\n__proto__:${anyHash()}\r\n`),
          Buffer.from(`jos\xe9:${anyHash()}\r\n`, 'latin1'),
          Buffer.from(`${'x'.repeat(10_000_000)}:${anyHash()}\r\n`),
          Buffer.from(`constructor:${anyHash()}  \r\nnul\0:${anyHash()}\nlast:${anyHash()}`),
        ]),
      )
      const { code, stdout, stderr } = await run({ USER_STORE_URL: url }, ['import', file])
      expect(stdout).to.equal('4 imported, 0 already there, 3 refused\n')
      expect(stderr).to.equal(
        'line 5: not UTF-8\nline 6: longer than 4096 bytes\nline 8: username: expected no control characters\n',
      )
      expect(code).to.equal(1)
      const usernames = (await usersOf(url)).map(({ username }) => username)
      expect(usernames).to.have.members(['alice', '__proto__', 'constructor', 'last'])
      const { url: auth } = await startAuth({ env: { USER_STORE_URL: url } })
      await logIn(auth, { username: 'alice', password })
      expect((await post(`${auth}/login`, { username: 'alice', password: bcryptHash })).status).to.equal(401)
    })

    it('stops cleanly on Ctrl-C, and the same again goes on from there', async () => {
      const settings = { USER_STORE_URL: await fresh('sqlite') }
      const rows = Array.from({ length: 1000 }, (_, index) => `user${index}:${index === 99 ? 'x' : anyHash()}\n`)
      const stopped = await run(settings, ['import', '-'], {
        input: rows.join(''),
        watch: (child, stderr) =>
          void (stderr === 'line 100: expected a bcrypt hash after the last colon\n' && child.kill('SIGINT')),
      })
      expect(stopped.code).to.equal(130)
      const line = Number(/^Stopped after line (\d+)\./m.exec(stopped.stderr)?.[1])
      expect(line).to.be.within(100, 1000)
      expect(stopped.stdout).to.equal(`${line - 1} imported, 0 already there, 1 refused\n`)
      const again = await run(settings, ['import', fileOf(rows.join(''))])
      expect(again.stdout).to.equal(`${1000 - line} imported, ${line - 1} already there, 1 refused\n`)
    })

    it('tells elsewhere every 10,000 rows how far it is', async () => {
      const rows = Array.from({ length: 20_100 }, (_, index) => `user${index}:${anyHash()}\n`).join('')
      const { stderr } = await run({ USER_STORE_URL: await fresh('sqlite') }, ['import', '--dry-run', fileOf(rows)])
      expect(stderr).to.match(/^USER_STORE_URL: .*\n10000 rows, \d+\/s\n20000 rows, \d+\/s\n$/)
    })

    it('shows a progress line on a terminal, and gives way to what is wrong', async () => {
      const url = await fresh('sqlite')
      const rows = Array.from({ length: 500 }, (_, index) => `user${index}:${index === 400 ? 'x' : anyHash()}\n`)
      const { code, screen } = await onTerminal(url, `import '${fileOf(rows.join(''))}'`)
      expect(code).to.equal(1)
      const pieces = screen.split(`\r${escapeCharacter}[K`)
      expect(pieces.filter(piece => /^\d+ rows, \d+\/s$/.test(piece))).to.not.have.length(0)
      expect(pieces).to.include('line 401: expected a bcrypt hash after the last colon\r\n')
      expect(pieces.at(-1)).to.equal('499 imported, 0 already there, 1 refused\r\n')
    })

    it('says of a file that cannot be read which it is', async () => {
      const url = await fresh('sqlite')
      const missing = await run({ USER_STORE_URL: url }, ['import', 'nowhere.txt'])
      expect(missing.code).to.equal(1)
      expect(missing.stdout).to.equal('')
      expect(missing.stderr).to.match(/^ENOENT: .*'nowhere\.txt'\n$/)
      expect(existsSync(url.slice('sqlite:'.length))).to.equal(false)
    })
  })

  it('says in a sentence that a store cannot be used, without its password', async () => {
    const file = fileOf('no database, and long enough to be told from an empty one'.repeat(20))
    for (const [url, expected] of [
      ['postgres://me:hunter2@127.0.0.1:1/db', /^USER_STORE_URL: the database db at 127\.0\.0\.1:1 .*\n$/],
      [`sqlite:${file}`, /^USER_STORE_URL: the file .* is no SQLite database.*\n$/],
      ['mysql://me:hunter2@db', /^The configuration is invalid:\n {2}USER_STORE_URL: .*\n$/],
    ] as const) {
      const { code, stdout, stderr } = await run({ USER_STORE_URL: url }, ['add', 'bob', '--password-stdin'], {
        input: password,
      })
      expect({ code, stdout }).to.deep.equal({ code: 1, stdout: '' })
      expect(stderr).to.match(expected).and.to.not.include('hunter2').and.to.not.include(password)
    }
  })

  it('writes the change where the sessions cannot be ended, and says that Auth will', async () => {
    const url = await fresh('sqlite')
    await plant(url, [{ username: 'alice' }])
    const settings = { USER_STORE_URL: url, TOKEN_STORE_URL: 'postgres://127.0.0.1:1/db' }
    const { code, stderr } = await run(settings, ['disable', 'alice'])
    expect(code).to.equal(1)
    expect(stderr).to.match(/^TOKEN_STORE_URL: the database .*\nThe user has been changed, .*\n$/)
    expect((await usersOf(url))[0]).to.include({ credentialVersion: 2, endedVersion: 1 })
  })

  it('reads .env outside production, makes nothing there, and says what users in memory need', async () => {
    const folder = freshFolder()
    const none = { NODE_ENV: '', SERVICE_KEY: undefined, ADMIN_KEY: undefined, USER_STORE_URL: undefined }
    const without = await run({ ...none, USER_STORE_URL: 'sqlite:users.db' }, ['list'], { cwd: folder })
    expect(without.code).to.equal(0)
    expect(readdirSync(folder)).to.deep.equal([])

    writeFileSync(join(folder, '.env'), 'USER_STORE_URL=sqlite:users.db\n')
    const input = password
    const added = await run(none, ['add', 'alice', '--password-stdin'], { cwd: folder, input })
    expect(added.code).to.equal(0)
    expect(readdirSync(folder)).to.deep.equal(['.env', 'users.db'])
    const production = await run({ ...none, NODE_ENV: 'production' }, ['list'], { cwd: folder })
    expect(production).to.include({ code: 1, stdout: '' })
    expect(production.stderr).to.match(/^USER_STORE_URL: users in memory .*sqlite:path.*\n$/)
  })

  it('explains itself, and refuses with 2 what it does not know, without repeating what may be a password', async () => {
    const help = await run({}, ['--help'])
    expect(help).to.include({ code: 0, stderr: '' })
    expect(help.stdout).to.match(/^Usage: npm run users -- <command>/)
    const cases: [string[], RegExp][] = [
      [[], /^A command is missing\.\n\nUsage:/],
      [['__proto__'], /^There is no command __proto__\.\n\nUsage:/],
      [['add', 'bob', '--password=hunter2'], /^Unknown option '--password'\.\n\nUsage:/],
      [['add', 'bob', 'hunter2'], /^add takes <username>\.\n\nUsage:/],
      [['delete', 'bob'], /^Without a terminal, delete needs --yes\./],
      [['add', 'bob'], /^Without a terminal, add needs --password-stdin\./],
    ]
    const settings = { USER_STORE_URL: await fresh('sqlite') }
    const runs = cases.map(async ([args, expected]) => {
      const { code, stdout, stderr } = await run(settings, args)
      expect({ code, stdout }, args.join(' ')).to.deep.equal({ code: 2, stdout: '' })
      expect(stderr).to.match(expected).and.to.not.include('hunter2')
    })
    await Promise.all(runs)
  })

  it('asks on a terminal before it deletes', async () => {
    const url = await fresh('sqlite')
    await plant(url, [{ username: 'alice' }])
    const question = ['Delete alice permanently? [y/N] ']
    const kept = await onTerminal(url, 'delete alice', question, ['\r'])
    expect(kept.code).to.equal(1)
    expect(kept.screen).to.include('Nothing was deleted.')
    expect((await onTerminal(url, 'delete alice', question, ['y\r'])).code).to.equal(0)
  })
})

/** Runs a command as a person does, who answers each question when it is there. */
async function onTerminal(url: string, command: string, questions: string[] = [], answers: string[] = []) {
  const child = spawn('script', ['-qec', `'${process.execPath}' '${script}' ${command}`, '/dev/null'], {
    env: { ...surroundings, USER_STORE_URL: url },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  let screen = ''
  let next = 0
  child.stdout.on('data', chunk => {
    screen += chunk
    if (next < questions.length && screen.includes(questions[next] as string))
      child.stdin.write(answers[next++] as string)
  })
  const [code] = await once(child, 'close')
  return { code, screen }
}
