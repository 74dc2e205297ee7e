// The keys in the operator's view: which are listed, what the operator changes about them, and canaries.
import { expect } from 'chai'
import type { Browser, BrowserContext, Locator, Page } from 'playwright-core'
import { hasBrowser, openBrowser, reportMissingBrowser, violationsOf } from '../../support/browser.ts'
import { ask } from '../../support/client.ts'
import { adminKey, demo } from '../../support/credentials.ts'
import { logIn, validate } from '../../support/factories.ts'
import { closeServers, startAuth } from '../../support/servers.ts'

interface NewKey {
  id: string
  secret: string
}

describe("keys in the operator's view", () => {
  let browser: Browser
  let context: BrowserContext
  let operator: Page
  let auth: Awaited<ReturnType<typeof startAuth>>
  let session: string

  before(async function () {
    if (!hasBrowser) {
      reportMissingBrowser("keys in the operator's view")
      this.skip()
    }
    browser = await openBrowser()
  })
  after(async () => {
    await browser?.close()
    await closeServers()
  })

  beforeEach(async () => {
    auth = await startAuth({ env: { TOKEN_TTL_SECONDS: '600' } })
    session = await logIn(auth.url)
    context = await browser.newContext({ reducedMotion: 'reduce', viewport: { width: 1280, height: 900 } })
    context.setDefaultTimeout(30_000)
    operator = await context.newPage()
    await operator.goto(`${auth.internalUrl}/console`)
    await operator.getByLabel('ADMIN_KEY').fill(adminKey)
    await operator.keyboard.press('Enter')
    await operator.getByText('Events are live.').waitFor()
  })
  afterEach(() => context?.close())

  const button = (name: string, within: Page | Locator = operator) => within.getByRole('button', { name, exact: true })
  const row = (id: string) => operator.locator(`[data-key="${id}"]`)
  const becomes = (id: string, standing: string) =>
    row(id)
      .and(operator.locator(`[data-standing=${standing}]`))
      .waitFor()

  async function createKey(terms: object): Promise<NewKey> {
    return (await ask<NewKey>('POST', `${auth.url}/keys`, session, terms)).body
  }

  async function delegate(parent: string, name: string): Promise<NewKey> {
    const terms = { name, ttlSeconds: 60 }
    const { body } = await ask<{ token: string; tokenId: string }>('POST', `${auth.url}/tokens/delegate`, parent, terms)
    return { id: body.tokenId, secret: body.token }
  }

  async function list(nameOrId = ''): Promise<void> {
    await operator.getByLabel('Of one user, or nothing for all').fill(nameOrId)
    await button('List keys').click()
  }

  async function isLive(secret: string): Promise<boolean> {
    return (await validate<{ authenticated: boolean }>(auth.internalUrl, { token: secret })).body.authenticated
  }

  it('lists the keys of all users or of one, each with its owner and followed by what it delegated', async () => {
    const deploy = await createKey({ name: 'deploy', scope: 'orders:read' })
    const agent = await delegate(deploy.secret, 'agent')
    const account = { username: 'ci-bot', serviceAccount: true }
    const bot = await ask<{ id: string }>('POST', `${auth.internalUrl}/admin/users`, adminKey, account)
    const body = { userId: bot.body.id, name: 'nightly' }
    const nightly = await ask<NewKey>('POST', `${auth.internalUrl}/keys`, adminKey, body)

    await list()
    await row(nightly.body.id).getByText('ci-bot').waitFor()
    await row(deploy.id).getByText(`${demo.username} · scope orders:read · used once`).waitFor()
    await row(agent.id).getByText(`${demo.username} · delegated from ${deploy.id}`).waitFor()
    const ids = await operator.locator('[data-key]').evaluateAll(rows => rows.map(row => row.getAttribute('data-key')))
    expect(ids.indexOf(agent.id)).to.equal(ids.indexOf(deploy.id) + 1)
    expect(ids).to.have.members([nightly.body.id, deploy.id, agent.id])

    for (const nameOrId of ['ci-bot', bot.body.id]) {
      await list(nameOrId)
      await row(deploy.id).waitFor({ state: 'detached' })
      await row(nightly.body.id).waitFor()
      await list()
      await row(deploy.id).waitFor()
    }
    await list('nobody')
    await operator.getByRole('alert').getByText('There is no such user.').waitFor()
    await operator.getByText('Auth looks for them').waitFor({ state: 'detached' })
  })

  it('pauses a key and what it delegated, and resumes both', async () => {
    const deploy = await createKey({ name: 'deploy' })
    const agent = await delegate(deploy.secret, 'agent')
    await list()
    await button('Pause deploy').click()
    for (const { id, secret } of [deploy, agent]) {
      await becomes(id, 'paused')
      expect(await isLive(secret)).to.equal(false)
    }
    await button('Resume deploy').click()
    for (const { id, secret } of [deploy, agent]) {
      await becomes(id, 'live')
      expect(await isLive(secret)).to.equal(true)
    }
    await row(agent.id).getByText('used once').waitFor()
  })

  it('ends a key only after a confirmation, and what it delegated with it', async () => {
    const deploy = await createKey({ name: 'deploy' })
    const agent = await delegate(deploy.secret, 'agent')
    await list()
    await button('End deploy').click()
    await row(deploy.id).getByText('End deploy and 1 delegated token?').waitFor()
    await button('Keep deploy').and(operator.locator(':focus')).waitFor()
    await button('End it: deploy').dispatchEvent('click', { detail: 2 })
    await operator.keyboard.press('Enter')
    await button('End deploy').click()
    expect(await isLive(agent.secret)).to.equal(true)
    await button('End it: deploy').click()
    for (const { id, secret } of [deploy, agent]) {
      await becomes(id, 'ended')
      expect(await isLive(secret)).to.equal(false)
    }
  })

  it('follows what happens to keys elsewhere', async () => {
    const old = await createKey({ name: 'old' })
    await list()
    await row(old.id).waitFor()
    const fresh = await createKey({ name: 'fresh' })
    await row(fresh.id).getByText('used 0 times').waitFor()
    await row(fresh.id).getByText(demo.username).waitFor()
    await row(fresh.id)
      .getByRole('timer', { name: /never expires$/ })
      .waitFor()
    const agent = await delegate(session, 'agent')
    await row(agent.id).waitFor()
    await ask('PATCH', `${auth.url}/keys/${fresh.id}`, session, { name: 'renamed' })
    await row(fresh.id).getByText('renamed').waitFor()
    await isLive(fresh.secret)
    await row(fresh.id).getByText('used once').waitFor()
    await ask('DELETE', `${auth.url}/keys/${old.id}`, session)
    await becomes(old.id, 'ended')
    await ask('POST', `${auth.url}/logout`, session)
    await becomes(agent.id, 'ended')
    await becomes(fresh.id, 'live')
    await ask('DELETE', `${auth.url}/sessions`, await logIn(auth.url))
    await becomes(fresh.id, 'ended')
  })

  it('marks a canary, and each use of it', async () => {
    const canary = await createKey({ name: 'in the old backup', canary: true })
    await list()
    await row(canary.id).getByText('canary', { exact: true }).waitFor()
    expect(await row(canary.id).locator('.bad').count()).to.equal(0)
    expect(await isLive(canary.secret)).to.equal(false)
    await row(canary.id)
      .locator('.bad')
      .getByText(/^used once, last at/)
      .waitFor()
    const event = operator.locator('.events .alarm')
    await event.getByText('“in the old backup” tried once').waitFor()
    expect(await event.locator('b').first().innerText()).to.equal('canary_used')
  })

  for (const colorScheme of ['light', 'dark'] as const) {
    it(`has no accessibility violations that axe finds, and fits into 375 px, ${colorScheme}`, async () => {
      await operator.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
      const deploy = await createKey({ name: 'deploy', scope: 'orders:read orders:write' })
      await delegate(deploy.secret, 'agent')
      const canary = await createKey({ name: 'in the old backup', canary: true })
      const nightly = await createKey({ name: 'nightly' })
      await isLive(canary.secret)
      await list()
      await button('Pause nightly').click()
      await becomes(nightly.id, 'paused')
      await operator.locator('.events .alarm').waitFor()
      await button('End deploy').click()
      for (const width of [1280, 375]) {
        await operator.setViewportSize({ width, height: 900 })
        expect(await operator.evaluate('document.documentElement.scrollWidth')).to.equal(width)
        expect(await violationsOf(operator)).to.deep.equal([])
      }
    })
  }
})
