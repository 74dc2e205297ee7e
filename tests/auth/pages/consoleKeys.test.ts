// API keys and delegated tokens in the console: a ring within the ring of its parent, and what ends both.
import { expect } from 'chai'
import type { Browser, BrowserContext, Locator, Page } from 'playwright-core'
import { hasBrowser, openBrowser, reportMissingBrowser, violationsOf } from '../../support/browser.ts'
import { ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey } from '../../support/credentials.ts'
import { logIn } from '../../support/factories.ts'
import { freePorts } from '../../support/freePort.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'

describe('keys in the console', () => {
  const clock = createClock()
  let browser: Browser
  let context: BrowserContext
  let page: Page
  let origin: string
  let authUrl: string
  let internalUrl: string

  before(async function () {
    if (!hasBrowser) {
      reportMissingBrowser('keys in the console')
      this.skip()
    }
    browser = await openBrowser()
    const { AUTH_PORT, BUSINESS_PORT } = await freePorts()
    origin = `http://localhost:${AUTH_PORT}`
    const auth = await startAuth({
      now: clock.now,
      env: { AUTH_PORT, TOKEN_TTL_SECONDS: '600', CONSOLE_BUSINESS_URL: `http://localhost:${BUSINESS_PORT}` },
    })
    authUrl = auth.url
    internalUrl = auth.internalUrl
    await startBusiness(internalUrl, { BUSINESS_PORT, CORS_ORIGINS: origin })
  })
  after(async () => {
    await browser?.close()
    await closeServers()
  })

  beforeEach(async () => {
    context = await browser.newContext({ reducedMotion: 'reduce', viewport: { width: 1280, height: 900 } })
    context.setDefaultTimeout(30_000)
    page = await context.newPage()
    await page.clock.install()
    await page.goto(`${origin}/console`)
    await button('Invent a user').click()
    await session('live').waitFor()
  })
  afterEach(() => context?.close())

  const button = (name: string, within: Page | Locator = page) => within.getByRole('button', { name, exact: true })
  const session = (state: string) => page.locator(`[data-state=${state}]`)
  const keyCard = (name: string) => page.locator('[data-key]', { hasText: name })
  const row = (name: string) => page.locator('[data-token]', { hasText: name })
  const becomes = (token: Locator, standing: string) =>
    token.and(page.locator(`[data-standing="${standing}"]`)).waitFor()
  /** The part that is left of a ring within the card, from 0 to 1. */
  const shareOf = (circle: Locator) =>
    circle.evaluate(
      el => 1 - Number(el.getAttribute('stroke-dashoffset')) / Number(el.getAttribute('stroke-dasharray')),
    )
  const innerOf = (card: Locator) => card.locator('> .ring .inner .left')

  async function createKey(name: string, scope = ''): Promise<Locator> {
    await page.getByLabel('Name of the key').fill(name)
    await page.getByLabel('Scope (optional)').last().fill(scope)
    await button('Create a key').click()
    await keyCard(name).waitFor()
    return keyCard(name)
  }

  async function delegate(from: string, name: string, { ttl = '60', scope = '', uses = '' } = {}): Promise<void> {
    await button(`Delegate from ${from}`).click()
    const form = page.locator('.delegation form')
    await form.getByLabel('Who acts').fill(name)
    await form.getByLabel('Lives for, in seconds').fill(ttl)
    await form.getByLabel('Scope (optional)').fill(scope)
    await form.getByLabel('Uses (optional)').fill(uses)
    await button('Delegate the token').click()
    await row(name).waitFor()
  }

  async function getData(name: string, status: number): Promise<void> {
    const answered = page.waitForResponse(
      answer => answer.url().endsWith('/data') && answer.request().method() === 'GET',
    )
    await button(`Get data with ${name}`).click()
    expect((await answered).status(), name).to.equal(status)
  }

  /** Lets time pass for Auth and for the page. */
  async function pass(ms: number): Promise<void> {
    clock.advance(ms)
    await page.clock.fastForward(ms)
  }

  it('a key that is ended takes its delegated token with it: the very next request is 401, and both rings are dead', async () => {
    const card = await createKey('deploy')
    await getData('deploy', 200)
    await card.getByText('used once').waitFor()
    await delegate('deploy', 'agent')
    expect(await innerOf(card).count()).to.equal(1)
    await getData('agent', 200)
    await row('agent').locator('.status').getByText('200', { exact: true }).waitFor()

    await button('End deploy').click()
    await becomes(row('agent'), 'ended')
    await row('agent').getByText('It ended with its key. The very next request is refused. Try it.').waitFor()
    await getData('agent', 401)
    await row('agent').locator('.status').getByText('401', { exact: true }).waitFor()
    await becomes(row('agent'), 'ended')
    await becomes(card, 'ended')
    expect(await shareOf(innerOf(card))).to.equal(0)
    await card.getByRole('timer', { name: 'Key deploy: dead' }).waitFor()
    await card.getByRole('timer', { name: 'Delegated token agent: dead' }).waitFor()
    await getData('deploy', 401)
  })

  it('the inner ring drains with its own time to live, while that of the key stays full', async () => {
    const card = await createKey('deploy')
    await delegate('deploy', 'agent', { ttl: '100' })
    expect(await shareOf(innerOf(card))).to.be.above(0.9)
    await pass(60_000)
    await row('agent')
      .getByRole('timer', { name: /: (3[5-9]|40) seconds left$/ })
      .waitFor()
    expect(await shareOf(innerOf(card))).to.be.within(0.3, 0.41)
    expect(await shareOf(card.locator('> .ring > .left'))).to.equal(1)
    await card.getByRole('timer', { name: 'Key deploy: never expires' }).waitFor()
    await pass(40_000)
    await becomes(row('agent'), 'expired')
    await getData('agent', 401)
    await getData('deploy', 200)
  })

  it('a key that is paused pauses its delegated token, and both work again when it is resumed', async () => {
    const card = await createKey('deploy')
    await delegate('deploy', 'agent')
    await button('Pause deploy').click()
    await becomes(row('agent'), 'paused')
    await card.getByRole('timer', { name: 'Delegated token agent: paused' }).waitFor()
    await getData('agent', 401)
    await getData('deploy', 401)
    await button('Resume deploy').click()
    await becomes(row('agent'), 'live')
    await getData('agent', 200)

    await button('Pause agent').click()
    await becomes(row('agent'), 'paused')
    await getData('agent', 401)
    await getData('deploy', 200)
    await becomes(card, 'live')
  })

  it('a token that a session delegates appears within its ring, and ends with the session, while a key goes on', async () => {
    await createKey('deploy')
    const username = (await session('live').locator('h3').innerText()).trim()
    await delegate(`the session of ${username}`, 'helper')
    expect(await innerOf(session('live')).count()).to.equal(1)
    await getData('helper', 200)
    await button('End', session('live')).click()
    await becomes(row('helper'), 'ended')
    await row('helper').getByText('It ended with its session.').waitFor()
    await getData('helper', 401)
    await getData('deploy', 200)
    expect(await button('End deploy').isDisabled(), 'without a session').to.equal(true)
    await page.getByText('Log in to create, pause or end keys.').waitFor()
    await button('Remove', session('ended')).click()
    await row('helper').waitFor({ state: 'detached' })
  })

  it('ending all sessions of a user ends the keys too', async () => {
    await createKey('deploy')
    await delegate('deploy', 'agent')
    await button('End all', session('live')).click()
    await becomes(keyCard('deploy'), 'ended')
    await becomes(row('agent'), 'ended')
    await getData('agent', 401)
  })

  it('a token is used up after as many requests as it was given, and may not have more than its parent', async () => {
    await createKey('deploy', 'orders:read')
    await delegate('deploy', 'agent', { uses: '1' })
    await row('agent').getByText('scope orders:read · 1 use left').waitFor()
    await getData('agent', 200)
    await becomes(row('agent'), 'used up')
    await getData('agent', 401)

    await button('Delegate from deploy').click()
    const form = page.locator('.delegation form')
    await form.getByLabel('Who acts').fill('thief')
    await form.getByLabel('Scope (optional)').fill('orders:write')
    await button('Delegate the token').click()
    await form.getByRole('alert').getByText('expected names among those of the token that delegates').waitFor()
  })

  it('the secret of a key is shown once, can be copied, and is not stored in the browser', async () => {
    await context.grantPermissions(['clipboard-read', 'clipboard-write'])
    const card = await createKey('deploy')
    const secret = await card.locator('.secret code').innerText()
    expect(secret).to.match(/^lk_key_[0-9A-Za-z]{63}$/)
    await button('Copy the secret: deploy').click()
    await card.getByText('Copied').waitFor()
    expect(await page.evaluate('navigator.clipboard.readText()')).to.equal(secret)
    await button('Hide the secret of deploy').click()
    await card.locator('.secret').waitFor({ state: 'detached' })
    expect(await page.content()).to.not.include(secret)
    await getData('deploy', 200)
    expect(await page.evaluate('localStorage.length + sessionStorage.length + document.cookie.length')).to.equal(0)
  })

  it('lists the keys of the user with their uses, also those of other pages and what has ended elsewhere', async () => {
    const card = await createKey('deploy')
    await createKey('lost')
    const username = (await session('live').locator('h3').innerText()).trim()
    const owner = await ask<{ users: { id: string }[] }>(
      'GET',
      `${internalUrl}/admin/users?username=${username}`,
      adminKey,
    )
    const other = { userId: owner.body.users[0]?.id, name: 'elsewhere', canary: true }
    expect(await ask('POST', `${internalUrl}/keys`, adminKey, other)).to.include({ status: 201 })
    const secret = await card.locator('.secret code').innerText()
    for (let i = 0; i < 3; i++)
      await ask('POST', `${authUrl}/tokens/delegate`, secret, { name: 'child', ttlSeconds: 60 })
    await ask('DELETE', `${internalUrl}/keys/${await keyCard('lost').getAttribute('data-key')}`, adminKey)
    await button('List my keys').click()
    await keyCard('elsewhere').getByText('canary', { exact: true }).waitFor()
    await keyCard('elsewhere').getByText('used 0 times').waitFor()
    expect(await button('Get data with elsewhere').count(), 'without a secret').to.equal(0)
    await card.getByText(/^live used 3 times, last \d+ seconds? ago$/).waitFor()
    expect(await row('child').count()).to.equal(3)
    await becomes(keyCard('lost'), 'ended')
  })

  it('a token that an operator ends is shown as refused at the next request, and only then', async () => {
    const card = await createKey('deploy')
    await ask('DELETE', `${internalUrl}/keys/${await card.getAttribute('data-key')}`, adminKey)
    await becomes(card, 'live')
    await getData('deploy', 401)
    await becomes(card, 'refused')
    await button('End deploy').click()
    await becomes(card, 'ended')
  })

  it('a key may be created for each of several users', async () => {
    await button('Use the demo user').click()
    await session('live').nth(1).waitFor()
    await page.getByRole('combobox', { name: 'User' }).selectOption('demo@example.com')
    const card = await createKey('deploy')
    await card.getByText('of demo@example.com').waitFor()
    await getData('deploy', 200)
    await card.getByText('Hello, demo@example.com!').waitFor()
    await ask('DELETE', `${authUrl}/sessions`, await logIn(authUrl))
  })

  for (const colorScheme of ['light', 'dark'] as const) {
    it(`rings, forms and secrets have no accessibility violations that axe finds, and fit into 375 px, ${colorScheme}`, async () => {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
      await createKey('deploy', 'orders:read orders:write')
      await delegate('deploy', 'agent', { uses: '9' })
      await createKey('nightly')
      await delegate('nightly', 'job')
      await getData('agent', 200)
      await button('Pause deploy').click()
      await becomes(row('agent'), 'paused')
      await getData('agent', 401)
      await button('End nightly').click()
      await becomes(row('job'), 'ended')
      await createKey('third')
      await button('Delegate from third').click()
      for (const width of [1280, 375]) {
        await page.setViewportSize({ width, height: 900 })
        expect(await page.evaluate('document.documentElement.scrollWidth')).to.equal(width)
        expect(await violationsOf(page)).to.deep.equal([])
      }
      const moving =
        "document.getAnimations().length + getComputedStyle(document.querySelector('.inner .left')).transitionDuration"
      expect(await page.evaluate(moving)).to.equal('00s')
    })
  }
})
