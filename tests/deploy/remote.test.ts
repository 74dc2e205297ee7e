// deploy/remote.sh, with a script instead of ssh that runs the commands here in a folder of its own, and another instead of
// docker. git and tar are real.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'

describe('deploy/remote.sh', () => {
  let folder: string
  let home: string

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'latchkey-remote-'))
    home = join(folder, 'home')
    mkdirSync(home)
    mkdirSync(join(folder, 'bin'))
    const programs = [
      'bash',
      'sh',
      'env',
      'dirname',
      'git',
      'tar',
      'rm',
      'mkdir',
      'mv',
      'cp',
      'sed',
      'head',
      'seq',
      'sort',
      'grep',
    ]
    for (const name of [...programs, 'sleep']) symlinkSync(`/usr/bin/${name}`, join(folder, 'bin', name))
    play('ssh', `echo "ssh $1" >> '${folder}/calls'; shift; cd '${home}' && exec bash -c "$1"`)
    playDocker({})
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  function play(name: string, script: string): void {
    writeFileSync(join(folder, 'bin', name), `#!/usr/bin/env bash\n${script}\n`, { mode: 0o755 })
  }

  /** A docker that logs its calls with their folder, and answers like Compose. `fails` is the call that exits with 1. */
  function playDocker({ version = 'v2.39.1', fails = 'none', running = '' }): void {
    play(
      'docker',
      `case "$*" in
        info) ;;
        'compose version --short') echo ${version} ;;
        'compose port auth 3001') echo 127.0.0.1:3001 ;;
        'compose port business 3000') echo 127.0.0.1:3000 ;;
        'compose ps --services') printf '${running}' ;;
        *) echo "\${PWD##*/}: \${*//fetch*/fetch}" >> '${folder}/calls' ;;
      esac
      case "$*" in ${fails}*) exit 1 ;; esac`,
    )
  }

  function deploy(...args: string[]) {
    const env = { PATH: join(folder, 'bin'), HOME: home }
    return spawnSync(join(process.cwd(), 'deploy/remote.sh'), args, { env, encoding: 'utf8' })
  }

  const calls = () => readFileSync(join(folder, 'calls'), 'utf8').trim().split('\n')

  it('copies the last commit, builds, starts, waits until both are ready, and prints the addresses', () => {
    const { status, stdout, stderr } = deploy('me@host.example.com')
    expect([status, stderr.replace(/^Uncommitted .*\n/, '')]).to.deep.equal([0, ''])
    expect(calls()).to.deep.equal([
      ...['ssh me@host.example.com', 'ssh me@host.example.com', 'ssh me@host.example.com'],
      'latchkey.next: compose build',
      'latchkey: compose up --detach --wait --wait-timeout 300',
      'latchkey: compose exec -T business node -e fetch',
      'ssh me@host.example.com',
    ])
    expect(stdout).to.include('http://127.0.0.1:3001').and.to.include('http://127.0.0.1:3000')
    expect(stdout).to.include('ssh -L 3001:127.0.0.1:3001 -L 3000:127.0.0.1:3000 me@host.example.com')
    const committed = spawnSync('git', ['show', 'HEAD:docker-compose.yml'], { encoding: 'utf8' }).stdout
    expect(readFileSync(join(home, 'latchkey/docker-compose.yml'), 'utf8')).to.equal(committed)
    expect(existsSync(join(home, 'latchkey.next'))).to.equal(false)
  })

  it('upgrades: keeps the settings, drops files that are gone, and restarts the metrics, whose folders are new', () => {
    mkdirSync(join(home, 'srv/latchkey'), { recursive: true })
    for (const name of ['.env', 'compose.override.yml', 'gone.ts'])
      writeFileSync(join(home, 'srv/latchkey', name), name)
    playDocker({ running: 'auth\\nprometheus\\n' })
    expect(deploy('host', 'srv/latchkey').status).to.equal(0)
    const has = (path: string) => existsSync(join(home, path))
    expect(readFileSync(join(home, 'srv/latchkey/.env'), 'utf8')).to.equal('.env')
    expect(
      ['srv/latchkey/compose.override.yml', 'srv/latchkey/gone.ts', 'srv/latchkey.previous/gone.ts'].map(has),
    ).to.deep.equal([true, false, true])
    expect(calls()).to.include('latchkey: compose restart prometheus grafana')
  })

  it('leaves the running version if the new one cannot be built', () => {
    mkdirSync(join(home, 'latchkey'))
    writeFileSync(join(home, 'latchkey/old.ts'), '')
    playDocker({ fails: "'compose build'" })
    const { status, stderr } = deploy('host')
    expect([status, existsSync(join(home, 'latchkey/old.ts'))]).to.deep.equal([1, true])
    expect(stderr).to.include("The logs: ssh host 'cd latchkey && docker compose logs'")
    expect(calls().some(call => call.includes('compose up'))).to.equal(false)
  })

  for (const [what, prepare, message] of [
    ['Docker is not installed', () => rmSync(join(folder, 'bin/docker')), 'Docker is not installed on the host'],
    ['Docker does not run', () => playDocker({ fails: 'info' }), 'may not use it (group docker)'],
    [
      'Compose is too old',
      () => playDocker({ version: '2.9.0' }),
      'Compose on the host is 2.9.0, and 2.20 or newer is needed.',
    ],
    ['there is no Compose', () => playDocker({ fails: "'compose version'" }), 'The host has no Docker Compose 2'],
    [
      'the host cannot be reached',
      () => play('ssh', 'echo "no route" >&2; exit 255'),
      'ssh host docker compose version',
    ],
  ] as const) {
    it(`says so and changes nothing if ${what}`, () => {
      prepare()
      const { status, stderr } = deploy('host')
      expect(status).to.equal(1)
      expect(stderr).to.include(message)
      expect(existsSync(join(home, 'latchkey'))).to.equal(false)
    })
  }

  it('prints its usage, and refuses wrong arguments', () => {
    const help = deploy('--help')
    expect([help.status, help.stdout.startsWith('Usage: deploy/remote.sh [user@]host [folder]\n')]).to.deep.equal([
      0,
      true,
    ])
    for (const args of [
      [],
      ['--bogus'],
      ['a', 'b', 'c'],
      ['host', 'a b'],
      ['host', '../x'],
      ['host', '/'],
      ['host', '$(x)'],
    ]) {
      expect(deploy(...args).status, args.join(' ')).to.equal(2)
    }
    expect(existsSync(join(folder, 'calls'))).to.equal(false)
  })

  it('has no mistakes that ShellCheck knows', function () {
    const { error, stdout } = spawnSync('shellcheck', ['deploy/remote.sh', '.ci/kubernetes/install'], {
      encoding: 'utf8',
    })
    if (error) {
      console.log('  not tested: deploy/remote.sh with ShellCheck, because it is not installed')
      this.skip()
    }
    expect(stdout).to.equal('')
  })
})
