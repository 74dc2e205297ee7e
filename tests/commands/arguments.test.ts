// Every command and tool explains itself with --help, and rejects unknown arguments with a message and exit code 2.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, statSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { expect } from 'chai'
import type { Ended } from '../support/manyCommands.ts'

const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> }

/** Tools of other projects, which parse their own arguments. */
const notOurs = ['lint', 'format', 'typecheck', 'version', 'docs:dev', 'docs:build']
const own = Object.entries(scripts).filter(([name]) => !notOurs.includes(name))

const commands: Record<string, string> = {
  ...Object.fromEntries(own.map(([name, command]) => [`npm run ${name}`, command])),
  './startServer': './startServer',
  './runTests': './runTests',
  '.ci/run': '.ci/run',
  'commands/keys/containerKeys.ts': 'commands/node commands/keys/containerKeys.ts',
  'commands/healthcheck.ts': 'commands/node commands/healthcheck.ts',
  'commands/forwardPort.ts': 'commands/node commands/forwardPort.ts',
}

/** Appends the arguments to the command, as npm does. */
async function run(command: string, args: string[], input = ''): Promise<Ended> {
  const child = spawn('bash', ['-c', `${command} "$@"`, 'bash', ...args])
  child.stdin.end(input)
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')])
  return { code: code as number | null, stdout, stderr }
}

const benchmarks = Object.keys(scripts).filter(name => name.startsWith('bench'))
const refused: [name: string, args: string[]][] = [
  ...benchmarks.map((name): [string, string[]] => [name, ['--json', 'nowhere/result.json']]),
  ['bench', ['--rounds', 'many']],
  ['bench', ['--connections', '1,,2']],
  ['bench', ['--compare', 'nowhere.json']],
  ['bench:gate', ['--against', 'package.json']],
  ['bench:auth', ['--parts', 'calls,posts']],
  ['bench:peers', ['--only', 'Keycloak']],
  ['bench:logins', ['--seconds', '0']],
  ['bench:stores', ['--stores', 'memory,mongo']],
  ['token-keys', ['--algorithm', 'RS256']],
]

describe('the arguments of every command', () => {
  const runInNode = 'commands/node '
  const keyOf = (command: string, args: string[]) => [command, ...args].join(' ')
  const ended = new Map<string, Ended>()

  before(async () => {
    const lines = [
      ...Object.values(commands).flatMap(command => [
        [command, '--help'],
        [command, '--bogus'],
      ]),
      ...refused.map(([name, args]) => [scripts[name] as string, ...args]),
    ].filter(([command = '']) => command.startsWith(runInNode))
    const input = lines.map(([command = '', ...args]) => [...command.slice(runInNode.length).split(' '), ...args])
    const { stdout, stderr } = await run(`${runInNode}tests/support/manyCommands.ts`, [], JSON.stringify(input))
    expect(stderr).to.equal('')
    const results = JSON.parse(stdout) as Ended[]
    for (const [i, [command = '', ...args]] of lines.entries()) ended.set(keyOf(command, args), results[i] as Ended)
  })

  const resultOf = async (command: string, args: string[]) =>
    ended.get(keyOf(command, args)) ?? (await run(command, args))

  for (const [name, command] of Object.entries(commands)) {
    it(`${name} prints its usage with --help, and refuses --bogus`, async () => {
      const [help, bogus] = await Promise.all([resultOf(command, ['--help']), resultOf(command, ['--bogus'])])
      expect([help.code, help.stderr]).to.deep.equal([0, ''])
      expect(help.stdout).to.match(/^Usage: \S/)
      expect([bogus.code, bogus.stdout]).to.deep.equal([2, ''])
      expect(bogus.stderr)
        .to.match(/^[A-Z].*--bogus.*\n/)
        .and.to.include('Usage: ')
      expect(bogus.stderr).to.not.match(/^\s+at |Error/m)
    })
  }

  for (const [name, args] of refused) {
    it(`${name} ${args.join(' ')} is refused with the expected arguments, before anything is measured`, async () => {
      const { code, stdout, stderr } = await resultOf(scripts[name] as string, args)
      expect(stderr.split('\n')[0]).to.match(new RegExp(`^${args[0]}: `))
      expect([code, stdout]).to.deep.equal([2, ''])
    })
  }

  it('are read in a process of its own as in one with others', async () => {
    const command = `${runInNode}tools/fuzz.ts`
    for (const args of [['--help'], ['--bogus']]) {
      expect(await run(command, args)).to.deep.equal(ended.get(keyOf(command, args)))
    }
  })
})

describe('npm run bench', () => {
  it('prints at once what it does and how long it takes, and does not change the tracked results', async () => {
    const files = ['bench/results/data.json', 'bench/results/data.svg']
    const state = () => files.map(file => [statSync(file).mtimeMs, readFileSync(file, 'utf8')])
    const before = state()
    const args = ['--rounds', '1', '--seconds', '1', '--connections', '1', '--only', 'requireRole']
    const { code, stdout, stderr } = await run(scripts['bench'] as string, args)
    expect(code, stderr).to.equal(0)
    expect(stderr.split('\n').slice(0, 3)).to.deep.equal([
      'Starting the servers …',
      '[1/2] warm-up: Latchkey, requireRole, about 2 s left',
      stderr.split('\n')[2],
    ])
    expect(stderr.split('\n')[2]).to.match(
      /^\[2\/2\] 1 connection, round 1 of 1: Latchkey, requireRole, about \d+ s left$/,
    )
    expect(stdout).to.include(
      'Not saved. With --save this run replaces bench/results/data.json and bench/results/data.svg.',
    )
    expect(state()).to.deep.equal(before)
  })
})
