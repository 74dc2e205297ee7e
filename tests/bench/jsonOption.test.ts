// --json of every benchmark.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { expect } from 'chai'

describe('the file of --json', () => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> }
  const benchmarks = Object.entries(scripts).filter(([name]) => name.startsWith('bench'))

  for (const [name, script] of benchmarks) {
    it(`is refused by ${name} before the measurement if it cannot be written`, () => {
      const file = script.split(' ').at(-1) as string
      const args = [file, '--json', 'nowhere/result.json']
      const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 30_000 })
      expect(stderr).to.match(/^--json: cannot write nowhere\/result\.json \(ENOENT\)\./m)
      expect(status).to.equal(2)
    })
  }
})
