// The command line `latchkey`: what it prints without a deployment, and `latchkey tokens` beside a running Auth.
import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { adminKey, demo } from '../support/credentials.ts'
import { validate } from '../support/factories.ts'
import type { Ended } from '../support/manyCommands.ts'
import { startAuth } from '../support/servers.ts'
import { latchkey, linesOf, removeLeftovers, run } from '../support/usersCommand.ts'

/** Runs all commands in one process, so each must end while it reads its arguments. */
function runTogether(lines: string[][]): Ended[] {
  const input = JSON.stringify(lines.map(args => [latchkey, ...args]))
  return JSON.parse(execFileSync(process.execPath, ['tests/support/manyCommands.ts'], { input, encoding: 'utf8' }))
}

describe('latchkey', () => {
  it('prints its version, and the help of every command', () => {
    const { version } = JSON.parse(readFileSync('package.json', 'utf8'))
    const paths = [
      '',
      'serve',
      'users',
      'users add',
      'keys list',
      'tokens issue',
      'doctor',
      'check-config',
      'completion',
    ]
    const [printed, ...helps] = runTogether([
      ['--version'],
      ...paths.map(path => [...path.split(' '), '--help'].filter(Boolean)),
    ])
    expect(printed).to.deep.equal({ code: 0, stdout: `${version}\n`, stderr: '' })
    for (const [i, path] of paths.entries()) {
      expect(helps[i], path).to.include({ code: 0, stderr: '' })
      expect(helps[i]?.stdout.split('\n')[0]).to.match(
        new RegExp(`^Usage: ${`latchkey ${path}`.trim()} [<[]|^Usage: latchkey check-config`),
      )
    }
  })

  it('refuses wrong usage with exit code 2 and a suggestion, without quoting a possible password', () => {
    const cases: [string[], string][] = [
      [[], 'A command is missing.'],
      [['usres'], 'There is no command usres. Did you mean users?'],
      [['__proto__'], 'There is no command __proto__.'],
      [['\x1b[2J'], 'There is no command \\u001b[2J.'],
      [['users', 'ad', 'bob'], 'There is no command ad. Did you mean add?'],
      [['users', 'list', '--jsno'], "Unknown option '--jsno'. Did you mean --json?"],
      [['users', 'add', 'bob', '--pasword-stdin'], "Unknown option '--pasword-stdin'. Did you mean --password-stdin?"],
      [['users', 'add', 'bob', '--password=hunter2'], "Unknown option '--password'."],
      [['users', 'add', 'bob', 'hunter2'], 'add takes <username>.'],
      [['keys', 'end'], 'end takes <id>.'],
      [['tokens', 'issue'], "Required option '--ttl <duration>' not specified."],
      [['tokens', 'issue', '--ttl'], "Option '--ttl <duration>' argument missing."],
      [['serve', '--port', '80'], "Unknown option '--port'."],
      [['check-config', 'all'], 'check-config takes no argument.'],
      [
        ['completion', 'tcsh'],
        "Command-argument value 'tcsh' is invalid for argument 'shell'. Allowed choices are bash, zsh, fish.",
      ],
    ]
    const ended = runTogether(cases.map(([args]) => args))
    for (const [i, [args, problem]] of cases.entries()) {
      const { code, stdout, stderr } = ended[i] as Ended
      expect({ code, stdout }, args.join(' ')).to.deep.equal({ code: 2, stdout: '' })
      expect(stderr)
        .to.match(/\n\nUsage: latchkey /)
        .and.to.not.include('hunter2')
      expect(stderr.split('\n')[0]).to.equal(problem)
    }
  })

  it('passes the arguments of bench to the benchmark, and its exit code back', async () => {
    const { code, stdout, stderr } = await run({}, ['--rounds', 'many'], { command: 'bench' })
    expect([code, stdout]).to.deep.equal([2, ''])
    expect(stderr).to.match(/^--rounds: expected /)
  })

  describe('completion', () => {
    const [bash = '', zsh = '', fish = ''] = ['bash', 'zsh', 'fish'].map(shell => {
      const [ended] = runTogether([['completion', shell]])
      return ended?.stdout
    })

    /** What bash offers when Tab is pressed after these words. */
    function offered(...words: string[]): string[] {
      const script = `${bash}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _latchkey; printf '%s\\n' "\${COMPREPLY[@]}"`
      const { stdout, stderr } = spawnSync('bash', ['-c', script, 'bash', 'latchkey', ...words], { encoding: 'utf8' })
      expect(stderr).to.equal('')
      return stdout.split('\n').filter(Boolean)
    }

    it('offers commands, their commands and options in bash', () => {
      expect(offered('')).to.include.members(['serve', 'users', 'keys', 'tokens', 'doctor', 'check-config', 'bench'])
      expect(offered('us')).to.deep.equal(['users'])
      expect(offered('users', 're')).to.deep.equal(['rename', 'resume', 'reset'])
      expect(offered('users', 'add', 'alice@example.com', '--p')).to.deep.equal(['--password-stdin'])
      expect(offered('tokens', 'issue', '--ttl', '30d', '--us')).to.deep.equal(['--user', '--uses'])
      expect(offered('completion', '')).to.include.members(['bash', 'zsh', 'fish'])
    })

    it('offers nothing after an unknown word, so that bash completes the names of files', () => {
      expect(offered('users', 'import', '/et')).to.deep.equal([])
    })

    it('executes nothing that is typed', () => {
      expect(offered('users', '$(echo >&2 executed)', 'users', '`echo >&2 executed`')).to.deep.equal([])
    })

    it('offers the same with descriptions in zsh and fish', () => {
      expect(zsh)
        .to.match(/^#compdef latchkey\n/)
        .and.to.include(`'add:ask for the password, add the user, and print the id'`)
      expect(fish).to.include(
        `complete -c latchkey -n "test (__latchkey_place) = ' users'" -a 'add' -d 'ask for the password, add the user, and print the id'`,
      )
    })
  })
})

describe('latchkey tokens', () => {
  let internalUrl: string
  let settings: Record<string, string>
  before(async () => {
    internalUrl = (await startAuth()).internalUrl
    settings = { AUTH_INTERNAL_URL: internalUrl, ADMIN_KEY: adminKey }
  })
  after(removeLeftovers)

  const secret = /lk_\w{63}/g
  const tokens = (...args: string[]) => run(settings, args, { command: 'tokens', secret })

  it('issues, lists, shows, pauses, resumes and revokes a token', async () => {
    const terms = ['--ttl', '2h', '--scope', 'orders:read', '--uses', '9', '--per-minute', '60', '--burst', '5']
    const issued = await tokens('issue', '--user', demo.username, ...terms)
    expect(issued.code, issued.stderr).to.equal(0)
    const [, id = '', token = ''] = /^(\w{14}) (lk_\w{63})\n$/.exec(issued.stdout) ?? []
    const verdict = async () => (await validate(internalUrl, { token })).body
    expect(await verdict()).to.deep.include({ authenticated: true, username: demo.username, scope: 'orders:read' })

    const facts = { id, kind: 'fixed', username: demo.username, usesLeft: 8, rate: { perMinute: 60, burst: 5 } }
    const shown = JSON.parse((await tokens('show', id, '--json')).stdout)
    expect(shown).to.deep.include(facts)
    expect(shown.expiresAt - shown.createdAt).to.equal(2 * 3_600_000)
    const listed = linesOf((await tokens('list', '--user', demo.username, '--scope', 'orders:read', '--json')).stdout)
    expect(listed.map(line => JSON.parse(line))).to.deep.equal([shown])
    expect((await tokens('show', id)).stdout)
      .to.match(/^kind +fixed$/m)
      .and.match(/^expiresAt +\d{4}-/m)
    expect((await tokens('list')).stdout)
      .to.match(/^ID .*USER\n/)
      .and.include(id)

    expect(await tokens('pause', id)).to.include({ code: 0, stdout: `${id} is paused.\n` })
    expect(await verdict()).to.deep.equal({ authenticated: false })
    expect(await tokens('resume', id)).to.include({ code: 0, stdout: `${id} works again.\n` })
    expect(await verdict()).to.include({ authenticated: true })
    expect(await tokens('revoke', id, '--yes')).to.include({ code: 0, stdout: `${id} is revoked.\n` })
    expect(await verdict()).to.deep.equal({ authenticated: false })
    for (const args of [
      ['revoke', id, '--yes'],
      ['pause', id],
      ['show', id],
    ]) {
      expect(await tokens(...args)).to.include({ code: 1, stderr: 'There is no token with this id.\n' })
    }
  })

  it('issues a single-use guest token for a purpose as JSON', async () => {
    const { stdout } = await tokens('issue', '--ttl', '90s', '--kind', 'single-use', '--purpose', 'invite', '--json')
    const { token, ...issued } = JSON.parse(stdout)
    expect(issued).to.include({ kind: 'single-use', purpose: 'invite', username: null })
    expect((await validate(internalUrl, { token, purpose: 'invite' })).body).to.include({ authenticated: true })
    expect((await validate(internalUrl, { token, purpose: 'invite' })).body).to.include({ authenticated: false })
  })

  it('explains what was wrong', async () => {
    const cases: [string[], number, RegExp][] = [
      [['issue', '--ttl', '5'], 2, /^--ttl: expected a duration such as 90s/],
      [['issue', '--ttl', '5s', '--absolute-ttl', 'x'], 2, /^--absolute-ttl: expected a duration/],
      [['issue', '--ttl', '5s', '--uses', '0'], 2, /^--uses: expected a whole number above 0/],
      [['issue', '--ttl', '5s', '--burst', '2'], 2, /^--burst needs --per-minute/],
      [['issue', '--ttl', '5s', '--kind', 'eternal'], 1, /^kind: expected one of /],
      [['issue', '--ttl', '5s', '--user', 'nobody'], 1, /^There is no user nobody/],
      [['revoke', 'x'], 2, /^Without a terminal, revoke needs --yes/],
      [['show', ''], 1, /^There is no token with this id/],
    ]
    const ended = await Promise.all(cases.map(([args]) => tokens(...args)))
    for (const [i, [args, code, stderr]] of cases.entries()) {
      expect(ended[i]?.code, args.join(' ')).to.equal(code)
      expect(ended[i]?.stderr).to.match(stderr)
    }
  })
})
