// The workflows, which only run after a push: what they name exists. What they call is tested elsewhere.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { expect } from 'chai'
import { parse } from 'yaml'

interface Workflow {
  on: { push?: { tags?: string[] } }
  permissions: Record<string, string>
  jobs: Record<string, { steps: { uses?: string; run?: string; 'working-directory'?: string }[] }>
}

const folder = '.github/workflows'
const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> }
const workflows = readdirSync(folder).map((name): [string, Workflow] => {
  return [name, parse(readFileSync(`${folder}/${name}`, 'utf8')) as Workflow]
})

describe('the workflows', () => {
  for (const [name, { on, permissions, jobs }] of workflows) {
    const steps = Object.values(jobs).flatMap(job => job.steps)
    const commands = steps.map(({ run = '' }) => run).join('\n')

    it(`${name} runs scripts and files that exist`, () => {
      const named = [...commands.matchAll(/npm run (?:-s )?([\w:-]+)/g)].map(([, script]) => script as string)
      expect(Object.keys(scripts)).to.include.members(named)
      const files = [...commands.matchAll(/(?:^|\s)(\.\/?[\w./]+)/g)].map(([, file]) => file as string)
      for (const file of files) expect(existsSync(file), file).to.equal(true)
    })

    it(`${name} may only do what it needs, with actions of fixed versions`, () => {
      expect(permissions).to.include({ contents: name === 'release.yml' ? 'write' : 'read' })
      for (const { uses = 'none@v0' } of steps) expect(uses).to.match(/@(v\d|[0-9a-f]{40})/)
    })

    if (on.push?.tags !== undefined) {
      it(`${name} publishes only what its tag names`, () => {
        const [check] = steps.filter(({ run }) => run?.includes('test "') && run.includes('GITHUB_REF_NAME'))
        expect(check?.run).to.match(/^test ".*v\$\(.*version.*\)" = "\$GITHUB_REF_NAME"$/)
      })
    }
  }
})
