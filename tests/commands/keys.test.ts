// npm run keys, beside a running Auth.
import { expect } from 'chai'
import { adminKey, demo, serviceKey } from '../support/credentials.ts'
import { validate } from '../support/factories.ts'
import { startAuth } from '../support/servers.ts'
import { linesOf, removeLeftovers, run } from '../support/usersCommand.ts'

const secret = /lk_key_\w+/

describe('npm run keys', () => {
  let internalUrl: string
  let settings: Record<string, string>
  before(async () => {
    internalUrl = (await startAuth({ env: { KEY_USAGE_DAYS: '1' } })).internalUrl
    settings = { AUTH_INTERNAL_URL: internalUrl, ADMIN_KEY: adminKey }
  })
  after(removeLeftovers)

  const verdictOn = async (token: string) => (await validate(internalUrl, { token })).body
  const keys = (...args: string[]) => run(settings, args, { command: 'keys', secret })

  it('creates, lists, pauses, resumes and ends a key of a service account', async () => {
    const added = await run(settings, ['add', 'ci-bot', '--service', '--role', 'deployer'])
    expect(added.code, added.stderr).to.equal(0)
    const { code, stdout } = await keys('add', 'ci-bot', 'nightly build', '--scope', 'deployer a', '--per-minute', '60')
    expect(code).to.equal(0)
    const [, id = '', key = ''] = /^(\w{14}) (lk_key_\w{63})\n$/.exec(stdout) ?? []
    const facts = { username: 'ci-bot', keyName: 'nightly build', scope: 'deployer a', roles: ['deployer'] }
    expect(await verdictOn(key)).to.deep.include(facts)

    const [line = ''] = linesOf((await keys('list', '--user', 'ci-bot', '--json')).stdout)
    const listed = { id, name: 'nightly build', useCount: 1, expiresAt: null, username: 'ci-bot', parentId: null }
    expect(JSON.parse(line)).to.deep.include({ ...listed, rate: { perMinute: 60, burst: 60 } })
    expect((await keys('list')).stdout)
      .to.match(/^ID .*NAME\n/)
      .and.include('nightly build')

    expect((await keys('pause', id)).code).to.equal(0)
    expect(await verdictOn(key)).to.deep.equal({ authenticated: false })
    expect((await keys('resume', id)).code).to.equal(0)
    expect(await verdictOn(key)).to.include({ authenticated: true })
    expect((await keys('end', id, '--yes')).code).to.equal(0)
    expect(await verdictOn(key)).to.deep.equal({ authenticated: false })
    expect(await keys('end', id, '--yes')).to.include({ code: 1, stderr: 'There is no key with this id.\n' })
  })

  it('shows how often a key was used, by the hour or by the minute', async () => {
    const { stdout } = await keys('add', demo.username, 'counted')
    const [id = '', key = ''] = stdout.trim().split(' ')
    for (let i = 0; i < 3; i++) await verdictOn(key)
    const shown = linesOf((await keys('usage', id)).stdout)
    expect(shown[0]).to.match(/^FROM +USES +DELEGATED$/)
    expect(shown.slice(1).join('\n')).to.match(/^\d{4}-\d\d-\d\dT\d\d:00:00\.000Z +\d +0(\n|$)/)
    const minutes = linesOf((await keys('usage', id, '--by', 'minute', '--json')).stdout)
    const buckets = minutes.map(line => JSON.parse(line) as { startsAt: number; count: number; delegatedCount: number })
    expect(buckets.reduce((sum, { count }) => sum + count, 0)).to.equal(3)
    expect(buckets.map(({ startsAt }) => startsAt % 60_000)).to.deep.equal(buckets.map(() => 0))
    const unknown = await keys('usage', 'unknown')
    expect(unknown).to.include({ code: 1, stderr: 'There is no key with this id.\n' })
  })

  it('creates a key that expires', async () => {
    const { stdout } = await keys('add', demo.username, 'short', '--expires', '2099-12-31')
    const key = secret.exec(stdout)?.[0] ?? ''
    expect(await verdictOn(key)).to.include({ expiresAt: Date.UTC(2099, 11, 31) })
  })

  it('explains what was wrong', async () => {
    for (const [args, code, stderr] of [
      [[], 2, /A command is missing/],
      [['add', 'x'], 2, /add takes <username> and <name>/],
      [['add', 'x', 'y', '--expires', 'soon'], 2, /--expires: expected a date/],
      [['add', 'x', 'y', '--burst', '2'], 2, /--burst needs --per-minute/],
      [['usage', 'x', '--by', 'day'], 2, /--by: expected hour or minute/],
      [['end', 'x'], 2, /end needs --yes/],
      [['add', 'nobody', 'y'], 1, /There is no user nobody/],
      [['add', demo.username, 'y', '--expires', '2001-01-01'], 1, /expiresAt: expected an instant in the future/],
      [['list', '--user', 'nobody'], 1, /There is no user nobody/],
    ] as const) {
      const ended = await keys(...args)
      expect(ended.code, args.join(' ')).to.equal(code)
      expect(ended.stderr).to.match(stderr)
    }
    const refused = await run({ ...settings, ADMIN_KEY: serviceKey }, ['list'], { command: 'keys' })
    expect(refused.stderr).to.match(/refuses this ADMIN_KEY/)
  })
})
