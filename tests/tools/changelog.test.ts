// A release: `npm version` in a repository of its own, with this project's scripts, and the notes that the workflow publishes.
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect } from 'chai'
import { notesOf, released } from '../../tools/changelog.ts'

const head = '# Changelog\n\nAbout it.\n\n## [Unreleased]\n\n'
const older = '\n## [0.1.0] - 2026-10-01\n\n- The first.\n'

describe('the changelog', () => {
  it('gets a dated section for what is unreleased, and an empty one for what follows', () => {
    const changelog = released(`${head}### Added\n\n- A thing.\n${older}`, '0.2.0', '2026-11-30')
    expect(changelog).to.equal(
      `${head}Nothing since the last release.\n\n## [0.2.0] - 2026-11-30\n\n### Added\n\n- A thing.\n${older}`,
    )
    expect(() => released(changelog, '0.3.0', '2026-12-01')).to.throw(
      'The section "Unreleased" of CHANGELOG.md has no entries.',
    )
    expect(() => released(changelog, '0.1.0', '2026-12-01')).to.throw('CHANGELOG.md has a section for 0.1.0 already.')
  })

  it('has the notes of one version', () => {
    const changelog = `${head}- Not yet.\n${older}`
    expect(notesOf(changelog, '0.1.0')).to.equal('- The first.')
    expect(notesOf(changelog, 'Unreleased')).to.equal('- Not yet.')
    expect(notesOf(changelog, '0.1')).to.equal(null)
  })
})

describe('npm version', function () {
  this.timeout(60_000)
  let folder: string
  const run = (command: string, ...args: string[]) => {
    const person = { NAME: 'A', EMAIL: 'a@example.com' }
    const names = Object.entries(person).flatMap(([name, value]) =>
      ['AUTHOR', 'COMMITTER'].map(role => [`GIT_${role}_${name}`, value]),
    )
    const env = { ...process.env, ...Object.fromEntries(names) }
    return execFileSync(command, args, { cwd: folder, env, encoding: 'utf8' })
  }

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'latchkey-release-'))
    const tools = ['tools/changelog.ts', 'tools/chartVersion.ts', 'commands/arguments.ts']
    for (const path of ['package.json', 'package-lock.json', 'deploy/helm/latchkey/Chart.yaml', ...tools]) {
      mkdirSync(dirname(join(folder, path)), { recursive: true })
      cpSync(path, join(folder, path))
    }
    // The real one would install packages into this folder.
    writeFileSync(join(folder, 'commands/node'), `#!/bin/sh\nexec '${process.execPath}' "$@"\n`, { mode: 0o755 })
    writeFileSync(join(folder, 'CHANGELOG.md'), `${head}- A thing.\n`)
    writeFileSync(join(folder, '.gitignore'), 'node_modules\n')
    symlinkSync(join(process.cwd(), 'node_modules'), join(folder, 'node_modules'))
    run('git', 'init', '-q')
    run('git', 'add', '.')
    run('git', 'commit', '-qm', 'chore: begin')
  })
  after(() => rmSync(folder, { recursive: true }))

  it('commits and tags the version with its section of the changelog, which are the notes, and the chart of that version', () => {
    run('npm', 'version', '9.8.7')
    expect(run('git', 'tag', '--points-at', 'HEAD').trim()).to.equal('v9.8.7')
    expect(run('git', 'status', '--porcelain')).to.equal('')
    const changelog = run('git', 'show', 'HEAD:CHANGELOG.md')
    expect(changelog).to.match(
      /^## \[Unreleased\]\n\nNothing since the last release\.\n\n## \[9\.8\.7\] - \d{4}-\d\d-\d\d\n/m,
    )
    const chart = run('git', 'show', 'HEAD:deploy/helm/latchkey/Chart.yaml')
    expect(chart)
      .to.match(/^version: 9\.8\.7$/m)
      .and.to.match(/^appVersion: 9\.8\.7$/m)
    expect(run('npm', 'run', '-s', 'changelog', '--', '--notes')).to.equal('- A thing.\n')
  })

  it('refuses a second release without entries, and changes nothing', () => {
    const before = readFileSync(join(folder, 'CHANGELOG.md'), 'utf8')
    const { status, stderr } = spawnSync('npm', ['version', '9.9.0'], { cwd: folder, encoding: 'utf8' })
    expect(status).to.not.equal(0)
    expect(stderr).to.include('The section "Unreleased" of CHANGELOG.md has no entries.')
    expect(run('git', 'tag').trim()).to.equal('v9.8.7')
    expect(readFileSync(join(folder, 'CHANGELOG.md'), 'utf8')).to.equal(before)
  })
})
