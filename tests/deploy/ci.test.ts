// .ci/run: how it installs missing packages, as root and as another user. Scripts stand in for apt-get and sudo.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'

const everything = [
  'script',
  'ps',
  'pgrep',
  'openssl',
  'shellcheck',
  'redis-server',
  'nginx',
  'caddy',
  'chromium',
  'python3',
]

describe('.ci/run', () => {
  let folder: string

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'latchkey-ci-'))
    for (const name of ['bash', 'dirname', 'env', 'ls', 'cat']) symlinkSync(`/usr/bin/${name}`, join(folder, name))
    // Not installed by apt-get.
    for (const name of ['helm', 'kubectl']) play(name, '')
    play('apt-get', `echo "$USER_NOW $DEBIAN_FRONTEND apt-get $*" >> '${folder}/calls'`)
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  function play(name: string, script: string): void {
    writeFileSync(join(folder, name), `#!/usr/bin/env bash\n${script}\n`, { mode: 0o755 })
  }

  function run(uid: number, ...args: string[]) {
    play('id', `[ "$*" = -u ] && echo ${uid}`)
    const env = { PATH: folder, USER_NOW: uid === 0 ? 'root' : 'runner' }
    return spawnSync(join(process.cwd(), '.ci/run'), args, { env, encoding: 'utf8' })
  }

  const calls = () => {
    const log = join(folder, 'calls')
    return existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []
  }

  it('calls apt-get itself as root', () => {
    expect(run(0, '--install').status).to.equal(0)
    expect(calls()).to.have.length(2)
    expect(calls()[0]).to.match(/^root +apt-get update -qq$/)
    expect(calls()[1]).to.match(/^root +apt-get install -y .*\bredis-server\b/)
  })

  it('calls it through sudo as another user, without prompts', () => {
    play('sudo', '[ "$1" = -n ] || exit 1; shift; [ "$1" = true ] && exit; USER_NOW=root exec "$@"')
    expect(run(1000, '--install').status).to.equal(0)
    expect(calls()).to.have.length(2)
    for (const call of calls()) expect(call).to.match(/^root noninteractive apt-get (update|install) /)
  })

  for (const [what, sudo] of [
    ['there is no sudo', null],
    ['sudo requires a password', 'echo "sudo: a password is required" >&2; exit 1'],
  ] as const) {
    it(`names what it needs if ${what}, and calls nothing`, () => {
      if (sudo !== null) play('sudo', sudo)
      const { status, stderr } = run(1000, '--install')
      expect([status, calls()]).to.deep.equal([1, []])
      expect(stderr).to.match(/^These packages are missing: .*\bredis-server\b/)
      expect(stderr).to.match(
        /^Installing them takes root, or sudo without a password\. .* apt-get install .*\bredis-server\b/m,
      )
    })
  }

  it('needs neither if nothing is missing', function () {
    if (spawnSync('ls /usr/lib/postgresql/*/bin/postgres', { shell: true }).status !== 0) {
      console.log('  not tested: .ci/run with nothing missing, because PostgreSQL is not installed')
      this.skip()
    }
    for (const name of everything) play(name, '')
    const { status, stdout, stderr } = run(1000, '--install')
    expect([status, stdout, stderr, calls()]).to.deep.equal([0, '', '', []])
  })

  it('prints its usage, and refuses unknown options', () => {
    const help = run(1000, '--help')
    expect([help.status, help.stdout.startsWith('Usage: .ci/run')]).to.deep.equal([0, true])
    const unknown = run(1000, '--bogus')
    expect([unknown.status, unknown.stderr]).to.deep.equal([
      2,
      "Unknown option '--bogus'. Usage: .ci/run [--install]\n",
    ])
  })
})
