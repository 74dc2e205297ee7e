// npm run screenshots: takes docs/console-*.png and docs/operator-*.png, the pages of /console that the README shows,
// light and dark. Starts both services on ports of their own and lets them run for a minute first.
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Browser, Page } from 'playwright-core'
import { readArguments } from '../commands/arguments.ts'
import { hasBrowser, openBrowser } from '../tests/support/browser.ts'
import { ask } from '../tests/support/client.ts'
import { adminKey, demo } from '../tests/support/credentials.ts'
import { issueToken, logIn } from '../tests/support/factories.ts'
import { cleanUp, copyOfProject, runStartServer } from '../tests/support/startServer.ts'

const usage = `Usage: npm run screenshots

Replaces the pictures in docs/ that the README shows. Needs Chromium and the ports 13000, 13001, 13100 and 13101.`
readArguments(usage, {})

if (!hasBrowser) {
  console.error('Chromium is needed: apt-get install chromium-headless-shell')
  process.exit(1)
}

const ports = {
  AUTH_PORT: '13001',
  AUTH_INTERNAL_PORT: '13101',
  BUSINESS_PORT: '13000',
  BUSINESS_INTERNAL_PORT: '13100',
}
const maxBytes = 350_000

const run = runStartServer({
  folder: copyOfProject(),
  env: { NODE_ENV: 'development', ACCESS_LOG: 'off', SWEEP_INTERVAL_SECONDS: '6', ...ports },
})
const { auth, business, authInternal } = await run.ready
const browser = await openBrowser()
try {
  await takeConsole(browser)
  await takeOperator(browser)
} finally {
  await browser.close()
  await cleanUp()
}

async function takeConsole(browser: Browser): Promise<void> {
  const page = await open(browser, `http://localhost:${ports.AUTH_PORT}/console`, 1560)
  const press = (name: string, at = 0) => page.getByRole('button', { name, exact: true }).nth(at).click()
  const live = (count: number) =>
    page
      .locator('[data-state=live]')
      .nth(count - 1)
      .waitFor()
  await press('Use the demo user')
  await live(1)
  await press('Use the demo user')
  await live(2)
  await press('End', 1)
  await page.locator('[data-state=ended]').waitFor()
  await press('Get data', 1)
  await page.locator('[data-state=refused]').waitFor()
  await takeKey(page, 'nightly', ['report'])
  await press('End nightly')
  await page.locator('[data-token][data-standing=ended]').waitFor()
  await press('Get data with report')
  await page.locator('[data-token] .status').getByText('401').waitFor()
  await takeKey(page, 'deploy', ['agent', 'crawler'])
  await press('Burst')
  await page.locator('.burst[data-done=true]').waitFor()
  await sleep(9000)
  await press('Get data with crawler')
  await page.locator('.timing').getByText('of which Auth').waitFor()
  await keep(page, 'console')
}

/** Creates a key and delegates tokens from it, each of which lives ten seconds longer than the previous one. */
async function takeKey(page: Page, name: string, delegated: string[]): Promise<void> {
  const press = (name: string) => page.getByRole('button', { name, exact: true }).click()
  await page.getByLabel('Name of the key').fill(name)
  await press('Create a key')
  await press(`Hide the secret of ${name}`)
  for (const [i, agent] of delegated.entries()) {
    await press(`Delegate from ${name}`)
    await page.getByLabel('Who acts').fill(agent)
    await page.getByLabel('Lives for, in seconds').fill(String(20 + 10 * i))
    await press('Delegate the token')
    await page.locator('[data-token]', { hasText: agent }).waitFor()
  }
}

async function takeOperator(browser: Browser): Promise<void> {
  const page = await open(browser, `${authInternal}/console`, 1250)
  await page.getByLabel('ADMIN_KEY').fill(adminKey)
  await page.keyboard.press('Enter')
  await page.getByText('Events are live.').waitFor()
  const tokens: string[] = []
  for (let second = 0; second < 26; second++) {
    if (second % 4 === 0) tokens.push(await logIn(auth))
    const together = Math.round(40 + 35 * Math.sin(second / 3))
    const asked = Array.from({ length: together }, (_, i) => tokens[i % tokens.length] as string)
    await Promise.all(asked.map(async token => (await fetch(`${business}/data`, { headers: { token } })).text()))
    const short = { kind: 'fixed', ttlSeconds: 5 }
    if (second % 3 === 1) await ask('POST', `${authInternal}/tokens`, adminKey, short)
    if (second === 18) await page.getByRole('button', { name: 'Issue' }).click()
    if (second === 22) await page.getByRole('button', { name: 'Validate it' }).click()
    if (second === 23) await page.getByRole('button', { name: 'Validate it' }).click()
    await sleep(900)
  }
  await takeUser(page)
  await ask('DELETE', `${authInternal}/tokens/expired`, adminKey)
  await page.getByRole('button', { name: 'End token' }).first().click()
  const { tokenId } = await issueToken(authInternal, { kind: 'fixed', ttlSeconds: 600, scope: 'orders:write' })
  await ask('PATCH', `${authInternal}/tokens/${tokenId}`, adminKey, { rate: { perMinute: 100, burst: 20 } })
  await sleep(1500)
  await keep(page, 'operator')
}

/** Gives the demo user a role and a rate. */
async function takeUser(page: Page): Promise<void> {
  const press = (name: string) => page.getByRole('button', { name, exact: true }).click()
  await page.getByLabel('Name of the user').fill(demo.username)
  await press('Find')
  await page.getByLabel('Role', { exact: true }).fill('admin')
  await press('Give')
  await page.getByLabel('Requests a minute').fill('600')
  await press('Limit')
  await page.locator('.badge').getByText('600 a minute, 600 at once').waitFor()
}

async function open(browser: Browser, url: string, height: number): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 1200, height }, deviceScaleFactor: 1.25 })
  const page = await context.newPage()
  await page.goto(url)
  return page
}

async function keep(page: Page, name: string): Promise<void> {
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
    // Remove the focus, so that no button looks pressed.
    await page.evaluate('document.activeElement.blur()')
    await page.mouse.move(0, 0)
    await sleep(300)
    const picture = await page.screenshot()
    if (picture.length > maxBytes) throw new Error(`${name}-${colorScheme}.png has ${picture.length} bytes`)
    writeFileSync(`docs/${name}-${colorScheme}.png`, picture)
    console.log(`docs/${name}-${colorScheme}.png: ${Math.round(picture.length / 1000)} KB`)
  }
}
