// What the answers of routes that send mails reveal, and how they fail.
import { expect } from 'chai'
import { readAuthConfig } from '../../../services/auth/config.ts'
import { ConfigError, type Environment } from '../../../shared/config/readSettings.ts'
import { adminKey, serviceKey } from '../../support/credentials.ts'
import type { LogLine } from '../../support/log.ts'
import { parseAnswer } from '../../support/raw.ts'
import { startAuth } from '../../support/servers.ts'
import { until } from '../../support/until.ts'
import {
  accepted,
  ask,
  bytesOf,
  clientOf,
  describeMailLogs,
  freshAddress,
  freshPassword,
  logs,
  mailsTo,
  openAccounts,
  openMailServer,
  publicUrl,
  sender,
  server,
  useMail,
  writeMs,
} from './mailSetup.ts'

const productionBase = { NODE_ENV: 'production', SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey }

describe('an answer does not reveal whether there is an account:', function () {
  this.slow(500)
  useMail()
  const samples = 60
  const writes = ['insert', 'update', 'raiseFloor', 'findByUser', 'deleteById']

  async function openAll() {
    const slow = await openMailServer({ delayMs: 500 })
    const accounts = await openAccounts(slow.url)
    const names = {
      existing: freshAddress(),
      unconfirmed: freshAddress(),
      disabled: freshAddress(),
      'disabled and unconfirmed': freshAddress(),
    }
    await accounts.add(names.existing)
    await accounts.add(names.unconfirmed, { confirmed: false })
    await accounts.add(names.disabled, { disabled: true })
    await accounts.add(names['disabled and unconfirmed'], { confirmed: false, disabled: true })
    const classes: [name: string, username: () => string][] = [
      ['unknown', freshAddress],
      ...Object.entries(names).map(([name, username]): [string, () => string] => [name, () => username]),
    ]
    return { accounts, classes }
  }

  const paths = ['/users', '/users/confirm/resend', '/password/forgot']
  const bodyFor = (path: string, username: string) =>
    path === '/users' ? { username, password: freshPassword() } : { username }

  it('every answer has the same bytes', async () => {
    const { accounts, classes } = await openAll()
    for (const path of paths) {
      const seen = new Map<string, string>()
      for (const [name, username] of classes) {
        seen.set(name, await bytesOf(accounts.url, path, bodyFor(path, username())))
      }
      expect(parseAnswer([...seen.values()][0] as string).status, path).to.equal(202)
      for (const [name, bytes] of seen) expect(bytes, `${path} ${name}`).to.equal(seen.get('unknown'))
    }
  })

  for (const path of paths) {
    it(`POST ${path} takes the same time`, async () => {
      const { accounts, classes } = await openAll()
      for (const method of writes) accounts.slow.add(method) // an answer that waited for a write would be visibly late
      let report = ''
      for (let attempt = 0; attempt < 3; attempt++) {
        const times = new Map<string, number[]>(classes.map(([name]) => [name, []]))
        for (let i = 0; i < samples; i++) {
          // Vary the order: the work that a request leaves behind must not always slow down the same next request.
          const order = classes.map(
            (_, at) => classes[(i + at * (1 + (i % 4))) % classes.length] as (typeof classes)[0],
          )
          for (const [name, username] of order) {
            const body = bodyFor(path, username())
            const startedAt = performance.now()
            await ask('POST', accounts.url + path, { body })
            times.get(name)?.push(performance.now() - startedAt)
          }
        }
        // Not the medians, because a busy machine makes most of the answers late.
        const fastest = [...times].map(([name, all]) => [name, Math.min(...all)] as const)
        const [least, most] = [Math.min(...fastest.map(([, ms]) => ms)), Math.max(...fastest.map(([, ms]) => ms))]
        report = fastest.map(([name, ms]) => `${name} ${ms.toFixed(2)} ms`).join(', ')
        if (most - least <= writeMs / 2) return
      }
      throw new Error(`the times differ: ${report}`)
    })
  }
})

describe('a failure of a mail', function () {
  this.slow(500)
  useMail()
  it('after the answer emits an event, and the next mail is sent', async () => {
    const { add, register, resend, forgot, broken, event, emitted, url } = await openAccounts(server.url)
    const [known, unconfirmed] = [freshAddress(), freshAddress()]
    const knownId = await add(known)
    const unconfirmedId = await add(unconfirmed, { confirmed: false })
    broken.add('insert') // inserts of users and of tokens fail
    expect(await register(freshAddress(), freshPassword())).to.deep.equal(accepted)
    expect(await event('link_not_sent')).to.include({ userId: null })
    expect(await resend(unconfirmed)).to.deep.equal(accepted)
    expect(await forgot(known)).to.deep.equal(accepted)
    await until(() => emitted('link_not_sent').length === 3)
    expect(emitted('link_not_sent').map(event => 'userId' in event && event.userId)).to.have.members([
      null,
      unconfirmedId,
      knownId,
    ])
    broken.clear()
    broken.add('findByUser') // the new link exists, but the older links are still valid
    expect(await forgot(known)).to.deep.equal(accepted)
    await until(() => emitted('link_not_sent').length === 4)
    broken.clear()
    expect(await forgot(known)).to.deep.equal(accepted)
    await server.next(known)
    expect(mailsTo(known)).to.have.length(1)
    expect(await ask('POST', `${url}/login`, { body: { username: known, password: 'CANARY-PW-before' } })).to.include({
      status: 200,
    })
  })

  it('after the answer to a second registration does not prevent a third one', async () => {
    const { add, register, reset, logIn, broken, event } = await openAccounts(server.url)
    const [username, password] = [freshAddress(), freshPassword()]
    await add(username, { confirmed: false })
    broken.add('raiseFloor')
    expect(await register(username, freshPassword())).to.deep.equal(accepted)
    await event('link_not_sent')
    broken.clear()
    expect(await register(username, freshPassword())).to.deep.equal(accepted)
    expect(await reset((await server.next(username)).token, password)).to.include({ status: 204 })
    expect(await logIn(username, password)).to.include({ status: 200 })
  })

  it('before the answer is 503, for every username alike', async () => {
    const { add, register, resend, forgot, broken } = await openAccounts(server.url)
    const known = freshAddress()
    await add(known)
    broken.add('findByUsername')
    for (const username of [known, freshAddress()]) {
      expect(await register(username, freshPassword())).to.include({ status: 503 })
      expect(await resend(username)).to.include({ status: 503 })
      expect(await forgot(username)).to.include({ status: 503 })
    }
    broken.clear()
    expect(await forgot(known)).to.deep.equal(accepted)
    await server.next(known)
  })

  it('while a link is used is 503, and the same request completes it', async () => {
    const { add, resend, forgot, confirm, reset, logIn, broken, users } = await openAccounts(server.url)
    const username = freshAddress()
    const id = await add(username, { confirmed: false })
    await resend(username)
    const { token } = await server.next(username)
    for (const method of ['look', 'findById', 'update', 'touch']) {
      broken.add(method)
      expect(await confirm(token), method).to.include({ status: 503 })
      broken.clear()
    }
    expect(await confirm(token)).to.include({ status: 204 })
    expect((await users.find(id))?.confirmedAt).to.be.a('number')

    await forgot(username)
    const link = await server.next(username)
    const chosen = freshPassword()
    for (const method of ['look', 'findById', 'update', 'raiseFloor']) {
      broken.add(method)
      expect(await reset(link.token, chosen), method).to.include({ status: 503 })
      broken.clear()
    }
    expect(await reset(link.token, chosen)).to.include({ status: 204 })
    expect(await reset(link.token, chosen)).to.include({ status: 401 })
    expect(await logIn(username, chosen)).to.include({ status: 200 })
  })
})

describe('mail without SMTP_URL', function () {
  this.slow(500)
  useMail()
  it('is logged with its link in development', async () => {
    const developing = await startAuth({ env: { NODE_ENV: 'development', EMAIL_CONFIRMATION: 'required' } })
    const { register, confirm, forgot, reset } = clientOf(developing.url)
    const logged = async (subject: string) => {
      const found = () => developing.lines.find(line => line.event === 'mail' && line['subject'] === subject)
      await until(found)
      return found() as LogLine
    }
    const username = freshAddress()
    await register(username, freshPassword())
    const line = await logged('Confirm your address')
    expect(line).to.include({ level: 'info', to: username })
    expect(await confirm(tokenIn(line, 'confirm'))).to.include({ status: 204 })
    await forgot(username)
    const chosen = freshPassword()
    expect(await reset(tokenIn(await logged('Choose a new password'), 'reset'), chosen)).to.include({ status: 204 })
    await logged('Your password was changed')
  })

  it('is off in production: 404 explains it, users register without mail, and links of operators still work', async () => {
    const silent = await startAuth({ env: { NODE_ENV: 'production', REGISTRATION: 'open' } })
    logs.push(silent.lines)
    const { register, resend, forgot, reset, logIn } = clientOf(silent.url)
    for (const answer of [await forgot(freshAddress()), await resend(freshAddress())]) {
      expect(answer).to.include({ status: 404 })
      expect(JSON.parse(answer.text).detail).to.include('SMTP_URL is not set')
    }
    const [username, password, chosen] = ['somebody', freshPassword(), freshPassword()]
    const registered = await register(username, password)
    expect(registered).to.include({ status: 201 })
    const terms = { kind: 'single-use', purpose: 'reset', userId: JSON.parse(registered.text).id, ttlSeconds: 3600 }
    const issued = await ask('POST', `${silent.internalUrl}/tokens`, { bearer: adminKey, body: terms })
    const { token } = JSON.parse(issued.text)
    expect(await reset(token, chosen)).to.include({ status: 204 })
    expect(await reset(token, freshPassword())).to.include({ status: 401 })
    expect(await logIn(username, password)).to.include({ status: 401 })
    expect(await logIn(username, chosen)).to.include({ status: 200 })
  })

  const tokenIn = ({ text }: LogLine, purpose: string) =>
    new RegExp(`http://localhost:\\d+/account#${purpose}=(\\w+)\\n`).exec(String(text))?.[1] as string
})

describe('the set-up of mail', function () {
  this.slow(500)
  it('prevents the start if it is incomplete, with a message that names what is missing', () => {
    const problemsOf = (env: Environment): string[] => {
      try {
        readAuthConfig({ ...productionBase, ...env })
        return []
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error
        return error.problems.map(problem => problem.slice(0, problem.indexOf(':')))
      }
    }
    const whole = { SMTP_URL: 'smtp://mail.example', MAIL_FROM: sender, PUBLIC_URL: publicUrl }
    expect(problemsOf(whole)).to.deep.equal([])
    expect(problemsOf({ ...whole, EMAIL_CONFIRMATION: 'required' })).to.deep.equal([])
    expect(problemsOf({ EMAIL_CONFIRMATION: 'required' })).to.deep.equal(['EMAIL_CONFIRMATION'])
    expect(problemsOf({ SMTP_URL: whole.SMTP_URL })).to.deep.equal(['MAIL_FROM', 'PUBLIC_URL'])
    expect(problemsOf({ ...whole, MAIL_FROM: '' })).to.deep.equal(['MAIL_FROM'])
    expect(problemsOf({ ...whole, PUBLIC_URL: undefined })).to.deep.equal(['PUBLIC_URL'])
    expect(problemsOf({ ...whole, MAIL_FROM: `${sender}, other@mail.example` })).to.deep.equal(['MAIL_FROM'])
    expect(problemsOf({ ...whole, SMTP_URL: 'http://mail.example' })).to.deep.equal(['SMTP_URL'])
  })
})

describeMailLogs(['mail_sent', 'token_issued'])
