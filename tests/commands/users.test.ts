// npm run users: lists and changes users in stores, prompts on a terminal, and explains what is wrong.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import type { UserRecord } from '../../services/auth/stores/userPort.ts'
import { ask, post } from '../support/client.ts'
import { adminKey } from '../support/credentials.ts'
import { logIn, validate } from '../support/factories.ts'
import type { Ended } from '../support/manyCommands.ts'
import { startAuth } from '../support/servers.ts'
import { query } from '../support/stores.ts'
import {
  anyHash,
  environmentOf,
  fileOf,
  fresh,
  freshFolder,
  isLive,
  latchkey,
  linesOf,
  onBoth,
  onTerminal,
  password,
  plant,
  removeLeftovers,
  rolesOf,
  run,
  runTogether,
  type Settings,
  usersOf,
} from '../support/usersCommand.ts'

describe('npm run users', () => {
  after(removeLeftovers)

  describe('on SQLite and PostgreSQL', () => {
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
        expect((await run(settings, ['list'])).stdout).to.match(/^[\w-]{36} {2}\S{24} {2}disabled {7}user {23}alice$/m)
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
      'gives and takes roles, pauses, resumes and sets a password, and the next verdict obeys',
      onBoth(async scheme => {
        const url = await fresh(scheme)
        const settings = { USER_STORE_URL: url, TOKEN_STORE_URL: url, TOKEN_TTL_SECONDS: '600' }
        const users = async (args: string[], input = '') => {
          const { code, stdout, stderr } = await run(settings, args, { input })
          expect({ code, stderr }, args.join(' ')).to.deep.equal({ code: 0, stderr: '' })
          return stdout
        }
        await users(['add', 'alice', '--role', 'admin, editor', '--password-stdin'], password)
        const { url: auth, internalUrl } = await startAuth({ env: settings })
        const alice = { username: 'alice', password }
        const token = await logIn(auth, alice)
        const obeyed = () => rolesOf(internalUrl, token)
        expect(await obeyed()).to.deep.equal(['admin', 'editor'])
        expect(await users(['roles', 'ALICE', '--add', 'auditor,admin', '--remove', 'editor,unknown'])).to.equal(
          'alice: admin, auditor\n',
        )
        expect(await obeyed()).to.deep.equal(['admin', 'auditor'])
        expect(await users(['roles', 'alice', '--set', ''])).to.equal('alice: no roles\n')
        expect(await obeyed()).to.deep.equal([])

        expect(await users(['rate', 'alice', '--per-minute', '1', '--burst', '2'])).to.equal(
          'alice: 1 a minute, 2 at once\n',
        )
        const verdict = async () => (await validate(internalUrl, { token })).body
        expect(
          [await verdict(), await verdict(), await verdict()].map(({ authenticated }) => authenticated),
        ).to.deep.equal([true, true, false])
        expect(await users(['rate', 'alice'])).to.equal('alice: 1 a minute, 2 at once\n')
        expect(await users(['rate', 'alice', '--none'])).to.equal('alice: no limit\n')
        expect(await verdict()).to.include({ authenticated: true })

        await users(['pause', 'alice'])
        expect(await obeyed()).to.equal(null)
        expect((await post(`${auth}/login`, alice)).status).to.equal(401)
        const [shown = ''] = linesOf(await users(['list', '--json'])).filter(line => line.includes('alice'))
        expect(JSON.parse(shown)).to.deep.include({ state: 'paused', paused: true, roles: [] })
        await users(['resume', 'alice'])
        expect(await obeyed()).to.deep.equal([])

        const chosen = 'CANARY lantern in a canoe'
        await users(['passwd', 'alice', '--password-stdin'], `${chosen}\n`)
        expect(await obeyed()).to.equal(null)
        expect((await post(`${auth}/login`, alice)).status).to.equal(401)
        const second = await logIn(auth, { username: 'alice', password: chosen })
        expect(await users(['rename', 'Alice', 'Bob'])).to.equal('alice is now bob.\n')
        expect(await rolesOf(internalUrl, second)).to.equal(null)
        await logIn(auth, { username: 'bob', password: chosen })

        const third = await logIn(auth, { username: 'bob', password: chosen })
        expect(await users(['email', 'bob'])).to.equal('bob: no e-mail address\n')
        expect(await users(['email', 'bob', '--set', 'bob@mail.example'])).to.equal('bob: bob@mail.example\n')
        expect(await rolesOf(internalUrl, third), 'a change ends the session').to.equal(null)
        expect(await users(['email', 'bob'])).to.equal('bob: bob@mail.example\n')
        expect(await users(['email', 'bob', '--none'])).to.equal('bob: no e-mail address\n')

        expect(await users(['attributes', 'bob'])).to.equal('{}\n')
        expect(await users(['attributes', 'bob', '--set', '{"plan":"pro","\u202e":1}'])).to.equal(
          '{"plan":"pro","\\u202e":1}\n',
        )
      }),
    )

    it(
      'creates no store to look for users, nor for a dry run',
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

  it(
    'adds a service account, marks it in the list, and gives it no password',
    onBoth(async scheme => {
      const url = await fresh(scheme)
      const settings = { USER_STORE_URL: url, TOKEN_STORE_URL: url }
      const added = await run(settings, ['add', 'Nightly-Report', '--service', '--role', 'reader'])
      expect(added, added.stderr).to.include({ code: 0, stderr: '' })
      const { url: auth, internalUrl } = await startAuth({ env: settings })
      const shown = await ask('GET', `${internalUrl}/admin/users/${added.stdout.trim()}`, adminKey)
      expect(shown.body).to.deep.include({ username: 'nightly-report', serviceAccount: true, roles: ['reader'] })
      expect((await run(settings, ['list'])).stdout).to.match(/ {2}active {9}service {2}reader {12}nightly-report$/m)
      const lines = linesOf((await run(settings, ['list', '--json'])).stdout).map(line => JSON.parse(line))
      expect(lines.filter(({ serviceAccount }) => serviceAccount).map(({ username }) => username)).to.deep.equal([
        'nightly-report',
      ])
      const refused = await run(settings, ['passwd', 'nightly-report', '--password-stdin'], { input: password })
      expect(refused).to.include({ code: 1, stdout: '', stderr: 'A service account has no password.\n' })
      expect((await post(`${auth}/login`, { username: 'nightly-report', password })).status).to.equal(401)
      const again = await run(settings, ['add', 'nightly-report', '--service'])
      expect(again).to.include({ code: 1, stderr: 'This username is taken.\n' })
      const without = await run({ ...settings, SMTP_URL: 'smtp://127.0.0.1:1', MAIL_FROM: 'me@mail.example' }, [
        'rename',
        'nightly-report',
        'weekly report',
      ])
      expect(without, without.stderr).to.include({ code: 0, stdout: 'nightly-report is now weekly report.\n' })
    }),
  )

  describe('add', () => {
    it('prompts twice on a terminal without showing the password', async () => {
      const url = await fresh('sqlite')
      const typed = [`${password}\r`, `${password}\r`]
      const { code, screen } = await onTerminal(url, 'add alice', ['Password: ', 'Repeat password: '], typed)
      expect(code).to.equal(0)
      expect(screen).to.match(/^Password: \r?\nRepeat password: \r?\n[\w-]{36}\s*$/)
      const { url: auth } = await startAuth({ env: { USER_STORE_URL: url } })
      await logIn(auth, { username: 'alice', password })
    })

    it('adds no user if the passwords differ or Ctrl-C is pressed', async () => {
      const url = await fresh('sqlite')
      const questions = ['Password: ', 'Repeat password: ']
      const differ = await onTerminal(url, 'add alice', questions, [`${password}\r`, `${password}!\r`])
      expect(differ.code).to.equal(1)
      expect(differ.screen).to.include('The passwords differ.').and.to.not.include(password)
      expect((await onTerminal(url, 'add alice', questions, [`${password}\r`, '\x03'])).code).to.equal(130)
      expect(await usersOf(url)).to.deep.equal([])
    })

    it('applies the rules of POST /users and explains each violation', async () => {
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

  it('changes nothing if roles or a password are not allowed, and says what is expected', async () => {
    const url = await fresh('sqlite')
    await plant(url, [{ username: 'alice' }, { username: 'carol' }])
    const cases: [string[], RegExp][] = [
      [['roles', 'alice', '--set', 'Admin'], /^roles: expected up to 16 different roles, .*\n$/],
      [['roles', 'alice', '--add', 'latchkey:root'], /^roles: expected no role that begins with latchkey:\n$/],
      [['add', 'bob', '--role', 'ad min', '--password-stdin'], /^roles: expected /],
      [['passwd', 'alice', '--password-stdin'], /^password: expected at least /],
      [['passwd', 'bob', '--password-stdin'], /^There is no user bob\.\n$/],
      [['rate', 'alice', '--per-minute', '0'], /^rate: perMinute: expected a whole number, 1 to 100000\n$/],
      [['rate', 'alice', '--per-minute', '1', '--burst', '1e9'], /^rate: burst: expected /],
      [['roles', 'bob'], /^There is no user bob\.\n$/],
      [['attributes', 'alice', '--set', '{"a":'], /^attributes: expected a JSON object of at most 1024 bytes\n$/],
      [
        ['attributes', 'alice', '--set', '{"profile":1}'],
        /^attributes: expected a JSON object of at most 512 bytes\n$/,
      ],
      [['email', 'alice', '--set', 'nowhere'], /^email: expected an e-mail address of at most 254 characters/],
      [['rename', 'alice', 'carol'], /^This username is taken\.\n$/],
      [['rename', 'alice', ' bob'], /^username: expected no blanks/],
    ]
    // One after the other: on a busy machine several that open the same file at once would time out.
    for (const [args, expected] of cases) {
      const { code, stdout, stderr } = await run({ USER_STORE_URL: url }, args, { input: 'short' })
      expect({ code, stdout }, args.join(' ')).to.deep.equal({ code: 1, stdout: '' })
      expect(stderr).to.match(expected)
    }
    expect((await usersOf(url)).map(({ username }) => username)).to.have.members(['alice', 'carol'])
    for (const user of await usersOf(url)) {
      expect(user).to.deep.include({ credentialVersion: 1, mirroredAuthority: 0, attributes: '{}' })
    }
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

    it('shows the state of every user, and prints no escape sequence of a username', async () => {
      const url = await fresh('sqlite')
      const authority = { version: 1, roles: ['admin', 'editor'], paused: true, rate: null }
      const states = [
        { authority },
        { confirmedAt: null },
        { disabledAt: 1, confirmedAt: null },
        { deletedAt: 1, disabledAt: 1 },
      ]
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
        'paused         user     admin,editor      red\\u001b[31m\\u0007',
        'unconfirmed    user                       title\\u009d0;owned\\u009c',
        'disabled       user                       right\\u202eto left',
        'being deleted  user                       two\\nlines',
        'active         user                       back\\\\slash \\"quoted\\"',
        'active         user                       tag\\udb40\\udc41',
      ])
      const usernames = linesOf(json.stdout).map(line => (JSON.parse(line) as UserRecord).username)
      expect(usernames).to.have.members(hostile)
    })

    it('ends quietly if its reader closes the pipe', async () => {
      const url = await fresh('sqlite')
      await plant(url, Array(1000).fill({}))
      const child = spawn(
        'bash',
        ['-c', `"$0" "$1" users list | head -n 2; echo "\${PIPESTATUS[0]}"`, process.execPath, latchkey],
        {
          env: environmentOf({ USER_STORE_URL: url }),
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

  it('explains why a store cannot be used, without printing its password', async () => {
    const file = fileOf('no database, and long enough to differ from an empty one'.repeat(20))
    for (const [url, expected] of [
      ['postgres://me:hunter2@127.0.0.1:1/db', /^USER_STORE_URL: the database db at 127\.0\.0\.1:1 .*\n$/],
      [`sqlite:${file}`, /^USER_STORE_URL: the file .* is not a SQLite database.*\n$/],
      ['mysql://me:hunter2@db', /^The configuration is invalid:\n {2}USER_STORE_URL: .*\n$/],
    ] as const) {
      const { code, stdout, stderr } = await run({ USER_STORE_URL: url }, ['add', 'bob', '--password-stdin'], {
        input: password,
      })
      expect({ code, stdout }).to.deep.equal({ code: 1, stdout: '' })
      expect(stderr).to.match(expected).and.to.not.include('hunter2').and.to.not.include(password)
    }
  })

  it('writes the change even if the sessions cannot be ended, and reports that Auth will end them', async () => {
    const url = await fresh('sqlite')
    await plant(url, [{ username: 'alice' }])
    const settings = { USER_STORE_URL: url, TOKEN_STORE_URL: 'postgres://127.0.0.1:1/db' }
    const { code, stderr } = await run(settings, ['disable', 'alice'])
    expect(code).to.equal(1)
    expect(stderr).to.match(/^TOKEN_STORE_URL: the database .*\nThe user has been changed, .*\n$/)
    expect((await usersOf(url))[0]).to.include({ credentialVersion: 2, endedVersion: 1 })
  })

  it('reads .env outside production, creates no files, and explains what users in memory require', async () => {
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

  it('prints its usage, and refuses wrong usage with exit code 2 without printing a possible password', async () => {
    const help = await run({}, ['--help'])
    expect(help).to.include({ code: 0, stderr: '' })
    expect(help.stdout).to.match(/^Usage: latchkey users <command>/)
    const whileReading: [string[], RegExp][] = [
      [[], /^A command is missing\.\n\nUsage:/],
      [['__proto__'], /^There is no command __proto__\.\n\nUsage:/],
      [['add', 'bob', '--password=hunter2'], /^Unknown option '--password'\.\n\nUsage:/],
      [['add', 'bob', 'hunter2'], /^add takes <username>\.\n\nUsage:/],
      [['rename', 'bob'], /^rename takes <username> and <new username>\.\n\nUsage:/],
      [['roles', 'bob', '--set'], /^Option '--set <roles>' argument missing/],
    ]
    const later: [string[], RegExp][] = [
      [['delete', 'bob'], /^Without a terminal, delete needs --yes\./],
      [['add', 'bob'], /^Without a terminal, add needs --password-stdin\./],
      [['add', 'bob', '--service', '--password-stdin'], /^add takes --service or --password-stdin\./],
      [['passwd', 'bob'], /^Without a terminal, passwd needs --password-stdin\./],
      [['roles', 'bob', '--set', 'a', '--add', 'b'], /^roles takes --set, or --add and --remove\./],
      [['email', 'bob', '--set', 'bob@mail.example', '--none'], /^email takes --set or --none\./],
      [['rate', 'bob', '--burst', '5'], /^rate takes --per-minute, with --burst or without, or --none\./],
      [['rate', 'bob', '--none', '--per-minute', '5'], /^rate takes /],
    ]
    const settings = { USER_STORE_URL: await fresh('sqlite') }
    const cases = [...whileReading, ...later]
    const argsOf = ([args]: [string[], RegExp]) => args
    const ended = [
      ...(await runTogether(settings, whileReading.map(argsOf))),
      ...(await Promise.all(later.map(one => run(settings, argsOf(one))))),
    ]
    expect(ended).to.have.length(cases.length)
    for (const [i, [args, expected]] of cases.entries()) {
      const { code, stdout, stderr } = ended[i] as Ended
      expect({ code, stdout }, args.join(' ')).to.deep.equal({ code: 2, stdout: '' })
      expect(stderr).to.match(expected).and.to.not.include('hunter2')
    }
  })

  it('asks for confirmation on a terminal before it deletes', async () => {
    const url = await fresh('sqlite')
    await plant(url, [{ username: 'alice' }])
    const question = ['Delete alice permanently? [y/N] ']
    const kept = await onTerminal(url, 'delete alice', question, ['\r'])
    expect(kept.code).to.equal(1)
    expect(kept.screen).to.include('Nothing was deleted.')
    expect((await onTerminal(url, 'delete alice', question, ['y\r'])).code).to.equal(0)
  })
})
