// The pages of /console in a real browser.
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { expect } from 'chai'
import type { Browser, BrowserContext, Locator, Page } from 'playwright-core'
import { hasBrowser, openBrowser, reportMissingBrowser, violationsOf } from '../../support/browser.ts'
import { ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo } from '../../support/credentials.ts'
import { logIn } from '../../support/factories.ts'
import { freePorts } from '../../support/freePort.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'
import { slackMs } from '../../support/slack.ts'
import { cleanUp, copyOfProject, runStartServer } from '../../support/startServer.ts'
import { until } from '../../support/until.ts'

describe('the console in a browser', () => {
  let browser: Browser
  let context: BrowserContext
  let page: Page
  let addresses: { business: string; businessInternal: string; auth: string; authInternal: string }
  let consoleUrl: string
  let messages: string[] = []
  let requested: Set<string>
  /** Whether pages get a clock that a test advances. */
  let hasTestClock = false
  /** Whether pages show animations; without them a test takes far less CPU time. */
  let hasMotion = false

  before(async function () {
    if (!hasBrowser) {
      reportMissingBrowser('the console in a browser')
      this.skip()
    }
    browser = await openBrowser()
  })
  after(async () => {
    await browser?.close()
    await cleanUp()
  })

  beforeEach(async () => {
    messages = []
    requested = new Set()
    const reducedMotion = hasMotion ? 'no-preference' : 'reduce'
    context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion })
  })
  afterEach(async () => {
    await context?.close()
    // These pages show refused requests on purpose, and the browser logs each of them as an error.
    const unexpected = messages.filter(text => !/status of 401/.test(text))
    expect(unexpected, 'in the console of the browser').to.deep.equal([])
    const own = [
      new URL(consoleUrl).origin,
      consoleUrl.replace(/:\d+\/console/, `:${new URL(addresses.business).port}`),
    ]
    const outside = [...requested].filter(url => ![...own, addresses.authInternal].includes(url))
    expect(outside, 'requests to others').to.deep.equal([])
  })

  async function open(context: BrowserContext, url = consoleUrl): Promise<Page> {
    const page = await context.newPage()
    page.on('console', message => ['error', 'warning'].includes(message.type()) && messages.push(message.text()))
    page.on('pageerror', error => messages.push(error.message))
    page.on('request', request => requested.add(new URL(request.url()).origin))
    page.setDefaultTimeout(30_000)
    if (hasTestClock) await page.clock.install()
    await page.goto(url)
    return page
  }

  const button = (name: string, within: Page | Locator = page) => within.getByRole('button', { name, exact: true })
  const cards = (state: string) => page.locator(`[data-state=${state}]`)

  async function logInHere(): Promise<void> {
    const before = await cards('live').count()
    await button('Use the demo user').click()
    await cards('live').nth(before).waitFor()
  }

  async function enterKey(operator: Page, key = adminKey): Promise<void> {
    await operator.getByLabel('ADMIN_KEY').fill(key)
    await operator.keyboard.press('Enter')
  }

  /** Opens the operator's view and waits until it receives events. */
  async function openOperator(): Promise<Page> {
    const operator = await open(context, `${addresses.authInternal}/console`)
    await enterKey(operator)
    await operator.getByText('Events are live.').waitFor()
    return operator
  }

  const rowOf = (operator: Page, secret: string) => operator.locator(`[data-id="${secret.slice(3, 17)}"]`)

  async function startPair(): Promise<void> {
    const ports = await freePorts()
    const run = runStartServer({
      folder: copyOfProject(),
      env: {
        NODE_ENV: 'development',
        ...ports,
        TOKEN_TTL_SECONDS: '600', // no session expires by itself, or later tokens would take its place in the list
        SWEEP_INTERVAL_SECONDS: '1',
        ACCESS_LOG: 'off',
      },
    })
    addresses = (await run.ready) as typeof addresses
    consoleUrl = `http://localhost:${ports.AUTH_PORT}/console`
  }

  describe('with a clock that the test advances', () => {
    const clock = createClock()

    before(async () => {
      const { AUTH_PORT, BUSINESS_PORT } = await freePorts()
      consoleUrl = `http://localhost:${AUTH_PORT}/console`
      const auth = await startAuth({
        now: clock.now,
        env: {
          AUTH_PORT,
          TOKEN_TTL_SECONDS: '30',
          SWEEP_INTERVAL_SECONDS: '1',
          CONSOLE_BUSINESS_URL: `http://localhost:${BUSINESS_PORT}`,
        },
      })
      const business = await startBusiness(auth.internalUrl, {
        BUSINESS_PORT,
        CORS_ORIGINS: new URL(consoleUrl).origin,
      })
      addresses = {
        business: business.url,
        businessInternal: business.internalUrl,
        auth: auth.url,
        authInternal: auth.internalUrl,
      }
      hasTestClock = hasMotion = true
    })
    after(async () => {
      hasTestClock = hasMotion = false
      await closeServers()
    })

    /** Lets time pass for Auth and for the page. */
    async function pass(ms: number, shown = page): Promise<void> {
      clock.advance(ms)
      await shown.clock.fastForward(ms)
    }

    it('shows a log-in as a ring that drains and that get data refills', async () => {
      page = await open(context)
      await logInHere()
      const timer = page.getByRole('timer')
      const left = async () => Number(/(\d+) seconds left/.exec((await timer.getAttribute('aria-label')) ?? '')?.[1])
      expect(await left()).to.be.within(26, 30)
      await pass(26_000)
      await page.getByRole('timer', { name: /: [1-4] seconds left$/ }).waitFor()
      await button('Get data').click()
      await page.locator('.said').getByText('Hello, demo@example.com!').waitFor()
      await page.getByText('slid once').waitFor()
      expect(await left()).to.be.within(26, 30)
      await page.locator('.timing').getByText('in a call of its own').waitFor()
      expect(await page.locator('.steps .lit').count()).to.equal(4)
    })

    it('shows that an unused token expires, and the problem document of the next request', async () => {
      page = await open(context)
      await logInHere()
      await pass(30_000)
      await cards('expired').waitFor()
      await button('Get data').click()
      await cards('refused').getByText('The token is missing, unknown, expired or revoked.').waitFor()
      await page.locator('.sent details summary').click()
      expect(await page.locator('.sent details pre').innerText()).to.include('"error": "invalid_token"')
    })

    it('shows an operator that a renewal refills the ring of a session and does not count as a use', async () => {
      const operator = await openOperator()
      const token = await logIn(addresses.auth)
      const row = rowOf(operator, token)
      await row.waitFor()
      await pass(26_000, operator)
      await row.getByRole('timer', { name: / [1-4] seconds left$/ }).waitFor()
      expect((await ask('POST', `${addresses.auth}/renew`, token)).status).to.equal(200)
      await row.getByRole('timer', { name: / (2[6-9]|30) seconds left$/ }).waitFor()
      await row.getByText('live', { exact: true }).waitFor()
      await row.getByText('used 0 times').waitFor()
      await pass(30_000, operator)
      await row.getByText('expired', { exact: true }).waitFor()
      await pass(1000, operator) // a sweep removes only tokens that were dead before it began
      await row.getByText('swept', { exact: true }).waitFor()
    })
  })

  describe('with the processes of ./startServer', () => {
    before(startPair)

    describe('for a user', () => {
      beforeEach(async () => {
        page = await open(context)
      })

      it('ends one session or all sessions of a user, and the very next request is refused', async () => {
        await logInHere()
        await logInHere()
        await button('Invent a user').click()
        await cards('live').nth(2).waitFor()
        await button('End', cards('live').last()).click()
        await button('Get data', cards('ended')).click()
        await cards('refused').getByText('It was ended.').waitFor()
        await logInHere()
        await logInHere()
        await button('End all', cards('live').first()).click()
        await cards('ended').nth(1).waitFor()
        expect(await cards('ended').count()).to.equal(3)
        await button('Get data', cards('ended').first()).click()
        await cards('refused').nth(1).waitFor()
      })

      it('holds a connection open, and shows that it dies within two seconds of its session', async () => {
        await logInHere()
        await button('Hold').click()
        await page.getByText(/^Connection open for \d+ s, [2-9] events$/).waitFor()
        await page.getByText('still open').waitFor()
        await button('End').click()
        const line = page
          .locator('.connection')
          .getByText('Business closed the connection, because its token had ended.')
        await line.waitFor()
        const [, ms] = /It took ([\d.]+) ms after the end of the session\.$/.exec(await line.innerText()) ?? []
        expect(Number(ms)).to.be.below(2000 + slackMs)
        await button('Hold').click()
        await cards('refused').waitFor()
      })

      it('closes a connection that it holds when the user releases it', async () => {
        await logInHere()
        await button('Hold').click()
        await button('Release').click()
        await page.getByText(/^You closed the connection\. It was open for /).waitFor()
        const holds = async () =>
          /^latchkey_holds 0$/m.test(await (await fetch(`${addresses.businessInternal}/metrics`)).text())
        await until(holds)
      })

      it('sends a burst of 200 and shows the numbers that Business counted', async () => {
        const counted = async () => {
          const metrics = await (await fetch(`${addresses.businessInternal}/metrics`)).text()
          const value = (name: string) =>
            Number(new RegExp(`^latchkey_batch_size_${name} (\\d+)`, 'm').exec(metrics)?.[1])
          return { requests: value('sum'), calls: value('count') }
        }
        await logInHere()
        const before = await counted()
        await button('Burst').click()
        await page.locator('.burst[data-done=true]').waitFor()
        const after = await counted()
        const calls = after.calls - before.calls
        expect(after.requests - before.requests).to.equal(200)
        expect(calls).to.be.below(150)
        expect(await page.locator('.burst .sum').innerText()).to.match(
          new RegExp(`^200 requests took ${calls} calls to Auth`),
        )
        expect(await page.locator('.calls span').count()).to.equal(calls)
        expect(await page.locator('.calls i').count()).to.equal(200)
        await page.getByText('slid 200 times').waitFor()
      })

      it('copies a request as a curl command that does the same', async () => {
        await context.grantPermissions(['clipboard-read', 'clipboard-write'])
        await logInHere()
        await button('Get data').click()
        await page.getByText('slid once').waitFor()
        for (const [title, answer] of [
          ['Get data', '{"data":"Hello, demo@example.com!"}'],
          ['Log in demo@example.com', '"tokenType":"Bearer"'],
        ]) {
          const press = page.getByRole('button', { name: `Copy as curl: ${title}` })
          await press.click()
          await press.getByText('Copied').waitFor()
          const command = await page.evaluate<string>('navigator.clipboard.readText()')
          expect(execFileSync('bash', ['-c', `${command} -s`], { encoding: 'utf8' }), command).to.include(answer)
        }
      })

      it('shows why a log-in failed', async () => {
        await page.getByLabel('Username').fill(demo.username)
        await page.getByLabel('Password').fill('wrong')
        await page.keyboard.press('Enter')
        await page.getByRole('alert').getByText('wrong').waitFor()
      })

      it('gets data when opened at 127.0.0.1 instead of localhost', async () => {
        const other = await open(context, `${addresses.auth}/console`)
        await button('Use the demo user', other).click()
        await button('Get data', other).click()
        await other.locator('.said').getByText('Hello, demo@example.com!').waitFor()
        requested.delete(addresses.auth)
      })

      it('shows which address to open if Business does not allow its origin', async () => {
        const origin = new URL(consoleUrl.replace('localhost', 'console.localhost')).origin // every browser resolves this name to loopback
        const other = await open(context, `${origin}/console`)
        await button('Use the demo user', other).click()
        await button('Get data', other).click()
        await other.locator('.said').getByText(`its CORS_ORIGINS lack ${origin}. Open ${consoleUrl}.`).waitFor()
        messages = messages.filter(text => !/CORS policy|ERR_FAILED/.test(text))
        requested.delete(origin)
      })

      it('lights exactly the steps that a request took', async () => {
        const lit = async () => (await page.locator('.steps .lit span').allInnerTexts()).join(', ')
        const answer = (path: string, status: number) =>
          page.route(`**${path}`, route =>
            status === 0
              ? route.abort()
              : route.fulfill({ status, contentType: 'application/problem+json', body: '{"detail":"as planned"}' }),
          )
        const whole = 'client → Business, Business → Auth, Auth → Business, Business → client'
        await logInHere()
        expect(await lit()).to.equal('client → Auth, Auth → client')
        for (const [status, said, expected] of [
          [503, '503', 'client → Business, Business → client'],
          [403, '403', 'client → Business, Business → client'],
          [0, 'no answer', 'client → Business'],
          [429, '429', whole],
          [401, '401', whole],
        ] as const) {
          await answer('/data', status)
          await button('Get data').first().click()
          await page.locator('.timing').getByText(`Get data: ${said} after`).waitFor()
          expect(await lit(), `Get data: ${said}`).to.equal(expected)
          await page.unroute('**/data')
        }
        for (const [status, said] of [
          [401, '401'],
          [429, '429'],
          [503, '503'],
          [0, 'no answer'],
        ] as const) {
          await answer('/login', status)
          await page.getByLabel('Username').fill(demo.username)
          await page.getByLabel('Password').fill('wrong')
          await page.keyboard.press('Enter')
          await page.locator('.timing').getByText(`Log in ${demo.username}: ${said} after`).waitFor()
          expect(await lit(), `log-in: ${said}`).to.equal('client → Auth')
          await page.unroute('**/login')
        }
        messages = messages.filter(text => !/status of 4|status of 503|ERR_FAILED|CORS policy/.test(text))
      })

      it('works with the keyboard alone and stores nothing in the browser', async () => {
        await page.getByRole('heading', { name: 'Latchkey' }).waitFor()
        await page.keyboard.press('Tab')
        expect(await page.evaluate('document.activeElement.textContent')).to.equal('Skip to the sessions')
        await page.keyboard.press('Enter')
        expect(await page.evaluate('document.activeElement.id')).to.equal('main')
        for (const key of ['Tab', 'Tab', 'Tab', 'Tab', 'Enter']) await page.keyboard.press(key)
        await cards('live').waitFor()
        expect(await page.evaluate('localStorage.length + sessionStorage.length + document.cookie.length')).to.equal(0)
      })

      it('fits into 360 px and does not move if the user prefers reduced motion', async () => {
        await page.setViewportSize({ width: 360, height: 700 })
        await page.emulateMedia({ reducedMotion: 'reduce' })
        await logInHere()
        await button('Get data').click()
        await page.getByText('slid once').waitFor()
        expect(await page.evaluate('document.documentElement.scrollWidth')).to.equal(360)
        const moving =
          "document.getAnimations().length + getComputedStyle(document.querySelector('.ring .left')).transitionDuration"
        expect(await page.evaluate(moving)).to.equal('00s')
      })

      for (const colorScheme of ['light', 'dark'] as const) {
        it(`has no accessibility violations that axe finds, ${colorScheme}`, async () => {
          await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
          await logInHere()
          await button('End').click()
          await button('Get data').click()
          await cards('refused').waitFor()
          await logInHere()
          expect(await violationsOf(page)).to.deep.equal([])
        })
      }
    })

    describe('for an operator', () => {
      for (const colorScheme of ['light', 'dark'] as const) {
        it(`has no accessibility violations that axe finds, ${colorScheme}`, async () => {
          const operator = await open(context, `${addresses.authInternal}/console`)
          await operator.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
          expect(await violationsOf(operator)).to.deep.equal([])
          await enterKey(operator)
          await logIn(addresses.auth)
          await operator.locator('.tokens [data-state=live]').first().waitFor()
          expect(await violationsOf(operator)).to.deep.equal([])
        })
      }

      it('shows an operator tokens that slide, expire, are refused and are swept, and ends all tokens of a user', async () => {
        const operator = await open(context, `${addresses.authInternal}/console`)
        await enterKey(operator, 'not the key')
        await operator.getByRole('alert').getByText('not the admin key').waitFor()
        await enterKey(operator)
        await operator.getByText('Events are live.').waitFor()
        const token = await logIn(addresses.auth)
        const row = (secret: string) => rowOf(operator, secret)
        await ask('GET', `${addresses.business}/data`, token)
        await row(token).getByText('used once').waitFor()
        await row(token).getByText('demo@example.com').waitFor()
        const other = await logIn(addresses.auth)
        await button(`End all of this user: ${demo.username}`, row(other)).click()
        await row(other).getByText('revoked', { exact: true }).waitFor()
        expect((await ask('GET', `${addresses.business}/data`, other)).status).to.equal(401)
        await row(other).getByText('refused once').waitFor()

        await operator.getByLabel('Lives for, in seconds').fill('1')
        await operator.getByRole('combobox', { name: /^Kind/ }).selectOption('fixed')
        await operator.locator('.chart .figure').first().getByText(/\d/).waitFor()
        expect(await operator.getByLabel('Lives for, in seconds').inputValue(), 'after redrawing').to.equal('1')
        await button('Issue', operator).click()
        const id = await operator.locator('.issued code').innerText()
        const issued = operator.locator(`[data-id="${id}"]`)
        await issued.getByText('swept', { exact: true }).waitFor()
        await button('Validate it', operator).click()
        await issued.getByText('refused once').waitFor()
        await operator.getByLabel('Only of the user').fill('nobody')
        await operator.getByText('Auth knows no such user').waitFor()
      })

      it('shows an operator that a single-use token is admitted once and then refused', async () => {
        const operator = await openOperator()
        await operator.getByRole('combobox', { name: /^Kind/ }).selectOption('single-use')
        await button('Issue', operator).click()
        const id = await operator.locator('.issued code').innerText()
        const issued = operator.locator(`[data-id="${id}"]`)
        await issued.getByText('live', { exact: true }).waitFor()
        await issued.getByText('single-use · used 0 times').waitFor()
        await button('Validate it', operator).click()
        await issued.getByText('consumed', { exact: true }).waitFor()
        await issued.getByText('single-use · used once').waitFor()
        await button('Validate it', operator).click()
        await issued.getByText('refused once: consumed').waitFor()
        const names = operator.locator('.events li', { hasText: id }).locator('> b')
        expect(await names.allInnerTexts()).to.deep.equal(['refused', 'consumed', 'issued'])
      })

      it('shows an operator that a password change ends all sessions of the user except the one that made it', async () => {
        const operator = await openOperator()
        const username = 'changes-password@example.com'
        const [password, another] = ['violet tractor humming gravel', 'rusty spoon beneath a lighthouse']
        await ask('POST', `${addresses.auth}/users`, null, { username, password })
        const [kept, ended] = [
          await logIn(addresses.auth, { username, password }),
          await logIn(addresses.auth, { username, password }),
        ]
        await rowOf(operator, ended).waitFor()
        const change = { currentPassword: password, password: another }
        expect((await ask('PATCH', `${addresses.auth}/users/me`, kept, change)).status).to.equal(200)
        await rowOf(operator, ended).getByText('revoked', { exact: true }).waitFor()
        expect(await rowOf(operator, kept).getAttribute('data-state')).to.equal('live')
      })

      it('draws a line for each kind of token that differs in more than its colour', async () => {
        const operator = await openOperator()
        const label = /^Tokens in the store over the last minute: now \d+.* until they are swept/
        await operator.getByRole('img', { name: label }).waitFor()
        const dashes = await operator.evaluate<string[]>(
          "[...document.querySelectorAll('.chart:first-child > svg path')].map(path => getComputedStyle(path).strokeDasharray)",
        )
        expect([dashes.length, new Set(dashes).size]).to.deep.equal([3, 3])
        await operator
          .locator('.kinds')
          .getByText(/^\s*\d+ single-use/)
          .waitFor()
      })

      it('shows an operator all tokens of a user that the filter names, even if the page knew none of them', async () => {
        const issue = async (userId?: string) => {
          const terms = { kind: 'fixed', ttlSeconds: 60, ...(userId !== undefined && { userId }) }
          const { body } = await ask<{ token: string }>('POST', `${addresses.authInternal}/tokens`, adminKey, terms)
          return body.token
        }
        const issueMany = async (count: number) => {
          for (let left = count; left > 0; left -= 10) await Promise.all(Array.from({ length: 10 }, () => issue()))
        }
        await issueMany(220) // the page reads the first 200
        const username = 'found@example.com'
        const password = 'a phrase that is hard to guess'
        const { body: user } = await ask<{ id: string }>('POST', `${addresses.auth}/users`, null, {
          username,
          password,
        })
        const token = await logIn(addresses.auth, { username, password })
        const fixed = await issue(user.id)
        const { text } = await ask('GET', `${addresses.authInternal}/tokens?limit=200`, adminKey)
        expect(text, 'the first page').to.not.include(username)

        const operator = await openOperator()
        const rows = operator.locator('.tokens > li')
        await rows.nth(50).waitFor()
        await operator.getByText('Not all tokens in the store are shown').waitFor()
        expect(await rowOf(operator, token).count()).to.equal(0)
        await operator.getByLabel('Only of the user').fill(username)
        await rowOf(operator, token).waitFor()
        await rowOf(operator, fixed).waitFor()
        expect(await rows.count()).to.equal(2)
        await issueMany(310) // the page keeps 300
        await operator.locator('.events').getByText(' fixed').first().waitFor()
        await ask('GET', `${addresses.business}/data`, token)
        await rowOf(operator, token).getByText('used once').waitFor()
        expect(await rows.count(), 'after more new tokens than the page keeps').to.equal(2)

        await operator.getByLabel('Only of the user').fill(user.id)
        await rowOf(operator, fixed).waitFor()
        await ask('DELETE', `${addresses.authInternal}/admin/users/${user.id}/sessions`, adminKey)
        await rowOf(operator, token).getByText('revoked', { exact: true }).waitFor()
        await operator.getByLabel('Only of the user').fill('found@example.org')
        await operator.getByText('Auth knows no such user').waitFor()
      })

      it('reports that the event stream was interrupted, and reconnects', async () => {
        // A proxy that can be cut, because the browser's offline mode does not interrupt open streams.
        const lines = new Set<Socket>()
        let isCut = false
        const line = createServer(socket => {
          const { hostname, port } = new URL(addresses.authInternal)
          const rest = connect(Number(port), hostname)
          for (const end of [socket, rest]) {
            lines.add(end)
            end.on('error', () => {})
            end.on('close', () => [socket, rest].map(end => end.destroy()))
          }
          if (isCut) socket.destroy()
          else socket.pipe(rest).pipe(socket)
        }).listen(0, '127.0.0.1')
        await once(line, 'listening')
        const url = `http://127.0.0.1:${(line.address() as AddressInfo).port}`
        const operator = await open(context, `${url}/console`)
        await enterKey(operator)
        await operator.getByText('Events are live.').waitFor()
        isCut = true
        for (const end of lines) end.destroy()
        await operator.getByText('The event stream was interrupted').waitFor()
        isCut = false
        await operator.getByText('Events are live.').waitFor()
        await operator.close()
        line.close()
        for (const end of lines) end.destroy()
        messages = messages.filter(text => !/net::ERR_/.test(text)) // which error it is depends on what the cut interrupted
        requested.delete(url)
      })
    })
  })
})
