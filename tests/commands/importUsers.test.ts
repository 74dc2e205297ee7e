// npm run users import: htpasswd files into SQLite and PostgreSQL.
import { existsSync } from 'node:fs'
import { expect } from 'chai'
import { post } from '../support/client.ts'
import { logIn } from '../support/factories.ts'
import { startAuth } from '../support/servers.ts'
import {
  anyHash,
  bcryptHash,
  escapeCharacter,
  fileOf,
  fresh,
  linesOf,
  onBoth,
  onTerminal,
  password,
  plant,
  removeLeftovers,
  run,
  usersOf,
} from '../support/usersCommand.ts'

describe('npm run users import', () => {
  after(removeLeftovers)

  it(
    'imports 2,000 rows, reports each bad row by its line, and skips rows that are already there',
    onBoth(async scheme => {
      const url = await fresh(scheme)
      const settings = { USER_STORE_URL: url }
      await plant(url, [{ username: 'taken@example.com' }])
      const rows = Array.from({ length: 2000 }, (_, index) => `user${index + 1}@example.com:${anyHash()}`)
      rows[0] = `Alice:${bcryptHash}`
      rows[1] = '# a comment: ignored'
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
      const members = ['id', 'username', 'createdAt', 'state', 'roles', 'paused', 'rate', 'serviceAccount']
      expect(Object.keys(listed[0])).to.deep.equal(members)
      const { url: auth } = await startAuth({ env: { USER_STORE_URL: url } })
      await logIn(auth, { username: 'alice', password })
    }),
  )

  describe('import', () => {
    it('handles files as editors and attackers write them', async () => {
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

    it('stops cleanly on Ctrl-C, and the same command continues from there', async () => {
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

    it('reports progress every 10,000 rows if stderr is not a terminal', async () => {
      const rows = Array.from({ length: 20_100 }, (_, index) => `user${index}:${anyHash()}\n`).join('')
      const { stderr } = await run({ USER_STORE_URL: await fresh('sqlite') }, ['import', '--dry-run', fileOf(rows)])
      expect(stderr).to.match(/^USER_STORE_URL: .*\n10000 rows, \d+\/s\n20000 rows, \d+\/s\n$/)
    })

    it('shows a progress bar on a terminal, and clears it for problems', async () => {
      const url = await fresh('sqlite')
      const rows = Array.from({ length: 3000 }, (_, index) => `user${index}:${index === 400 ? 'x' : anyHash()}\n`)
      const { code, screen } = await onTerminal(url, `import '${fileOf(rows.join(''))}'`)
      expect(code).to.equal(1)
      const pieces = screen.split(`\r${escapeCharacter}[K`)
      expect(pieces.filter(piece => /^\[#*-*\] +\d+ % \d+ rows, \d+\/s$/.test(piece))).to.not.have.length(0)
      expect(pieces).to.include('line 401: expected a bcrypt hash after the last colon\r\n')
      expect(pieces.at(-1)).to.equal('2999 imported, 0 already there, 1 refused\r\n')
    })

    it('names a file that cannot be read', async () => {
      const url = await fresh('sqlite')
      const missing = await run({ USER_STORE_URL: url }, ['import', 'nowhere.txt'])
      expect(missing.code).to.equal(1)
      expect(missing.stdout).to.equal('')
      expect(missing.stderr).to.match(/^ENOENT: .*'nowhere\.txt'\n$/)
      expect(existsSync(url.slice('sqlite:'.length))).to.equal(false)
    })
  })
})
