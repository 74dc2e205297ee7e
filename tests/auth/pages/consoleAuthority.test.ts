// What an operator changes in one window, and the next request of a user in another window obeys.
import { expect } from 'chai'
import type { Browser, Locator, Page } from 'playwright-core'
import { hasBrowser, openBrowser, reportMissingBrowser, violationsOf } from '../../support/browser.ts'
import { ask } from '../../support/client.ts'
import { adminKey, demo } from '../../support/credentials.ts'
import { freePorts } from '../../support/freePort.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'

describe('two windows of the console', () => {
  let browser: Browser
  let user: Page
  let operator: Page
  let internalUrl: string

  before(async function () {
    if (!hasBrowser) {
      reportMissingBrowser('two windows of the console')
      this.skip()
    }
    browser = await openBrowser()
    const { AUTH_PORT, BUSINESS_PORT } = await freePorts()
    const origin = `http://localhost:${AUTH_PORT}`
    const auth = await startAuth({
      env: { AUTH_PORT, TOKEN_TTL_SECONDS: '600', CONSOLE_BUSINESS_URL: `http://localhost:${BUSINESS_PORT}` },
    })
    internalUrl = auth.internalUrl
    await startBusiness(internalUrl, { BUSINESS_PORT, CORS_ORIGINS: origin })
    const context = await browser.newContext({ reducedMotion: 'reduce' })
    context.setDefaultTimeout(30_000)
    user = await context.newPage()
    await user.goto(`${origin}/console`)
    await button('Use the demo user', user).click()
    await user.locator('[data-state=live]').waitFor()
    operator = await context.newPage()
    await operator.goto(`${internalUrl}/console`)
    await operator.getByLabel('ADMIN_KEY').fill(adminKey)
    await operator.keyboard.press('Enter')
    await operator.getByText('Events are live.').waitFor()
    await operator.getByLabel('Name of the user').fill(demo.username)
    await button('Find', operator).click()
    await operator.getByText('No roles.').waitFor()
  })
  after(async () => {
    await browser?.close()
    await closeServers()
  })

  const button = (name: string | RegExp, within: Page | Locator) =>
    within.getByRole('button', { name, ...(typeof name === 'string' && { exact: true }) })
  const said = (text: string) => user.locator('.said').getByText(text).waitFor()
  const events = (name: string) => operator.locator('.events b').getByText(name, { exact: true }).first().waitFor()

  it('a role that the operator takes is missing in the next request', async () => {
    await button('Admin data', user).click()
    await user.locator('.said.bad').getByText('role admin').waitFor()
    await user.getByText('Roles: none').waitFor()
    expect(await user.locator('.steps .lit').count(), 'Auth was asked').to.equal(4)

    await operator.getByLabel('Role', { exact: true }).fill('admin')
    await button('Give', operator).click()
    await button(`Take admin from ${demo.username}`, operator).waitFor()
    await button('Admin data', user).click()
    await said('Hello, demo@example.com!')
    await user.getByText('Roles: admin').waitFor()

    await button(`Take admin from ${demo.username}`, operator).click()
    await operator.getByText('No roles.').waitFor()
    await button('Admin data', user).click()
    await user.locator('.said.bad').getByText('role admin').waitFor()
    await user.getByText('Roles: none').waitFor()
    await events('roles_changed')
    await button('Get data', user).click()
    await said('Hello, demo@example.com!')
  })

  it('a user and a token that the operator pauses are refused, and work again afterwards', async () => {
    const row = operator.locator('.tokens [data-state=live]')
    for (const [pause, resume] of [
      [button('Pause', operator), button('Resume', operator)],
      [button(/^Pause token /, row), button(/^Resume token /, row)],
    ] as const) {
      await pause.click()
      await resume.waitFor()
      await button('Get data', user).click()
      await user.locator('[data-state=refused]').waitFor()
      await operator.locator('.badge.refused').getByText('paused', { exact: true }).waitFor()
      await resume.click()
      await pause.waitFor()
      await button('Get data', user).click()
      await user.locator('[data-state=live]').waitFor()
    }
    for (const name of ['user_paused', 'user_resumed', 'changed']) await events(name)
  })

  it('a user beyond a limit that the operator sets must wait, and is served again without the limit', async () => {
    await operator.getByLabel('Requests a minute').fill('1')
    await button('Limit', operator).click()
    await operator.locator('.badge').getByText('1 a minute, 1 at once').waitFor()
    for (const status of [200, 429]) {
      const answered = user.waitForResponse(answer => answer.url().endsWith('/data') && answer.status() === status)
      await button('Get data', user).click()
      await answered
    }
    await said('The token is used too often.')
    await user.locator('[data-state=live]').waitFor()
    await operator.getByLabel('Requests a minute').fill('')
    await button('Limit', operator).click()
    await operator.locator('.badge').getByText('1 a minute, 1 at once').waitFor({ state: 'detached' })
    await button('Get data', user).click()
    await said('Hello, demo@example.com!')
    await events('rate_changed')
  })

  it('the operator issues a token with a scope, sees it in the list, and sees what is wrong with a role', async () => {
    await operator.getByLabel('Scope, or nothing for no restriction').fill('orders:write')
    await button('Issue', operator).click()
    await operator.locator('.tokens').getByText('scope orders:write').waitFor()
    await operator.getByLabel('Role', { exact: true }).fill('Admin!')
    await button('Give', operator).click()
    await operator.getByRole('alert').getByText('expected up to 16 different roles').waitFor()

    expect(await violationsOf(operator)).to.deep.equal([])
  })

  it('a service account that the operator looks up is marked, and other users are not', async () => {
    const mark = operator.locator('.badge').getByText('service account', { exact: true })
    expect(await mark.count()).to.equal(0)
    const body = { username: 'nightly-report', serviceAccount: true }
    expect(await ask('POST', `${internalUrl}/admin/users`, adminKey, body)).to.include({ status: 201 })
    await operator.getByLabel('Name of the user').fill('nightly-report')
    await button('Find', operator).click()
    await mark.waitFor()
    await button('Pause', operator).click()
    await button('Resume', operator).waitFor()
    await mark.waitFor()
  })
})
