// Every command and tool explains itself with --help, and rejects unknown arguments with a message and exit code 2.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, statSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { expect } from 'chai'

const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> }

/** Tools of other projects, which parse their own arguments. */
const notOurs = ['lint', 'format', 'typecheck']
const own = Object.entries(scripts).filter(([name]) => !notOurs.includes(name))

const commands: Record<string, string> = {
  ...Object.fromEntries(own.map(([name, command]) => [`npm run ${name}`, command])),
  './startServer': './startServer',
  './runTests': './runTests',
  '.ci/run': '.ci/run',
  'commands/keys/containerKeys.ts': 'commands/node commands/keys/containerKeys.ts',
  'commands/healthcheck.ts': 'commands/node commands/healthcheck.ts',
  'commands/forwardPort.ts': 'commands/node commands/forwardPort.ts',
  'tools/postmanFlow.ts': 'commands/node tools/postmanFlow.ts',
}

/** Appends the arguments to the command, as npm does. */
async function run(command: string, ...args: string[]) {
  const child = spawn('bash', ['-c', `${command} "$@"`, 'bash', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')])
  return { code: code as number | null, stdout, stderr }
}

describe('the arguments of every command', () => {
  for (const [name, command] of Object.entries(commands)) {
    it(`${name} prints its usage with --help, and refuses --bogus`, async () => {
      const [help, bogus] = await Promise.all([run(command, '--help'), run(command, '--bogus')])
      expect([help.code, help.stderr]).to.deep.equal([0, ''])
      expect(help.stdout).to.match(/^Usage: \S/)
      expect([bogus.code, bogus.stdout]).to.deep.equal([2, ''])
      expect(bogus.stderr)
        .to.match(/^[A-Z].*--bogus.*\n/)
        .and.to.include('Usage: ')
      expect(bogus.stderr).to.not.match(/^\s+at |Error/m)
    })
  }

  for (const [name, args] of [
    ['bench', ['--rounds', 'many']],
    ['bench', ['--connections', '1,,2']],
    ['bench', ['--compare', 'nowhere.json']],
    ['bench', ['--json', 'nowhere/result.json']],
    ['bench:gate', ['--against', 'package.json']],
    ['bench:auth', ['--parts', 'calls,posts']],
    ['bench:peers', ['--only', 'Keycloak']],
    ['bench:logins', ['--seconds', '0']],
    ['bench:stores', ['--stores', 'memory,mongo']],
    ['token-keys', ['--algorithm', 'RS256']],
  ] as const) {
    it(`${name} ${args.join(' ')} is refused with the expected arguments`, async () => {
      const { code, stderr } = await run(scripts[name] as string, ...args)
      expect(code).to.equal(2)
      expect(stderr.split('\n')[0]).to.match(new RegExp(`^${args[0]}: `))
    })
  }
})

describe('npm run bench', () => {
  it('prints at once what it does and how long it takes, and does not change the tracked results', async () => {
    const files = ['bench/results/data.json', 'bench/results/data.svg']
    const state = () => files.map(file => [statSync(file).mtimeMs, readFileSync(file, 'utf8')])
    const before = state()
    const args = ['--rounds', '1', '--seconds', '1', '--connections', '1', '--only', 'Latchkey']
    const { code, stdout, stderr } = await run(scripts['bench'] as string, ...args)
    expect(code, stderr).to.equal(0)
    expect(stderr.split('\n').slice(0, 3)).to.deep.equal([
      'Starting the servers …',
      '[1/2] warm-up: Latchkey, about 2 s left',
      stderr.split('\n')[2],
    ])
    expect(stderr.split('\n')[2]).to.match(/^\[2\/2\] 1 connection, round 1 of 1: Latchkey, about \d+ s left$/)
    expect(stdout).to.include(
      'Not saved. With --save this run replaces bench/results/data.json and bench/results/data.svg.',
    )
    expect(state()).to.deep.equal(before)
  })
})
