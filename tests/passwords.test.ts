// users/passwords.ts and users/users.ts: what a password is, what it costs, and what a full queue does.
import bcrypt from 'bcryptjs'
import { expect } from 'chai'
import fc from 'fast-check'
import { openUserStore } from '../services/auth/stores/memory.ts'
import { openPasswords, type Passwords } from '../services/auth/users/passwords.ts'
import { createUsers, type UserEvent } from '../services/auth/users/users.ts'
import type { AppError } from '../shared/errors.ts'

const never = new AbortController().signal

describe('passwords', () => {
  let passwords: Passwords
  before(async () => {
    // Cost 4 is bcrypt's least: what is tested here is not how long it takes.
    passwords = await openPasswords({ cost: 4, workers: 1, maxQueue: 1000 })
  })
  after(() => passwords.close())

  const matches = async (password: string, other: string) => passwords.verify(other, await passwords.hash(password))

  it('are stored with their scheme and salted: never the same twice', async () => {
    const [first, second] = [await passwords.hash('postman'), await passwords.hash('postman')]
    expect(first).to.match(/^hmac-sha256\+bcrypt:\$2b\$04\$/)
    expect(first).to.not.equal(second)
  })

  it('match themselves and nothing else, whatever Unicode they are', async () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'A', ' ', '\0', 'é', '🔑', '\u{10ffff}'), maxLength: 90 })
    await fc.assert(
      fc.asyncProperty(text, text, async (password, other) => {
        expect(await matches(password, password)).to.equal(true)
        expect(await matches(password, other)).to.equal(password === other)
      }),
      { numRuns: 60 },
    )
  })

  it('that differ only after byte 72 differ', async () => {
    expect(await matches('x'.repeat(72), 'x'.repeat(73))).to.equal(false)
    expect(await matches(`${'é'.repeat(36)}a`, `${'é'.repeat(36)}b`)).to.equal(false)
    expect(await matches('🔑'.repeat(64), '🔑'.repeat(63))).to.equal(false)
  })

  it('that differ by a NUL differ', async () => {
    for (const [password, other] of [
      ['abc', 'abc\0abc'],
      ['', '\0'],
      ['x'.repeat(71), `${'x'.repeat(71)}\0`],
    ] as const) {
      expect(await matches(password, other), JSON.stringify(other)).to.equal(false)
    }
  })

  it('are the same however an accent was typed', async () => {
    expect(await matches('caf\u00e9', 'cafe\u0301')).to.equal(true)
  })

  it('match no row that is empty, malformed, of another scheme, or would take years', async () => {
    const bare = bcrypt.hashSync('postman', 4)
    const ours = await passwords.hash('postman')
    const rows = [null, '', 'postman', bare, `${ours}x`, ours.slice(0, -1), ours.replace('$04$', '$31$')]
    for (const row of rows) expect(await passwords.verify('postman', row), `${row}`).to.equal(false)
    expect(await passwords.verify('', null)).to.equal(false)
  })

  it('cost the same whether there is such a user or not', async () => {
    const stored = await passwords.hash('postman')
    const time = async (row: string | null) => {
      const startedAt = performance.now()
      await passwords.verify('wrong', row)
      return performance.now() - startedAt
    }
    const pairs: { known: number; unknown: number }[] = []
    for (let i = 0; i < 60; i++) pairs.push({ known: await time(stored), unknown: await time(null) })
    const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length / 2] as number
    const ratio = median(pairs.map(({ known }) => known)) / median(pairs.map(({ unknown }) => unknown))
    expect(ratio).to.be.within(0.5, 2) // without the hash it would be a hundred times
  })
})

describe('the hash queue', () => {
  it('refuses at once what does not fit, and goes on with what did', async () => {
    const passwords = await openPasswords({ cost: 8, workers: 1, maxQueue: 3 })
    const outcomes = await Promise.all(
      Array.from({ length: 10 }, () =>
        passwords.hash('postman').then(
          () => 'hashed',
          (error: AppError) => `${error.code} ${error.headers['Retry-After']}`,
        ),
      ),
    )
    const hashed = ['hashed', 'hashed', 'hashed', 'hashed']
    expect(outcomes).to.deep.equal([...hashed, ...Array(6).fill('unavailable 2')])
    await passwords.close()
  })

  it('is left by a client that goes away', async () => {
    const passwords = await openPasswords({ cost: 8, workers: 1, maxQueue: 3 })
    const gone = new AbortController()
    const first = passwords.hash('first')
    const left = passwords.verify('second', null, gone.signal).catch((error: AppError) => error.code)
    expect(passwords.queued()).to.equal(1)
    gone.abort()
    expect(passwords.queued()).to.equal(0)
    expect(await left).to.equal('unavailable')
    expect(await first).to.be.a('string')
    await passwords.close()
  })

  it('never holds up the thread that validates', async () => {
    const passwords = await openPasswords({ cost: 10, workers: 1, maxQueue: 10 })
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    await passwords.hash('postman')
    clearInterval(timer)
    expect(turns).to.be.above(5) // on the main thread it would be 0: a hash of cost 10 is one piece of 50 ms
    await passwords.close()
  })

  it('rejects what waits when it is closed', async () => {
    const passwords = await openPasswords({ cost: 8, workers: 1, maxQueue: 3 })
    const outcomes = ['first', 'second'].map(password =>
      passwords.hash(password).catch((error: AppError) => error.code),
    )
    await passwords.close()
    expect(await Promise.all(outcomes)).to.deep.equal(['unavailable', 'unavailable'])
    expect(await passwords.hash('third').catch((error: AppError) => error.code)).to.equal('unavailable')
  })
})

describe('users', () => {
  async function openUsers() {
    const events: UserEvent[] = []
    const real = await openPasswords({ cost: 4, workers: 1, maxQueue: 100 })
    let hashes = 0
    const counting: Passwords = {
      ...real,
      verify(...args) {
        hashes++
        return real.verify(...args)
      },
    }
    const store = await openUserStore()
    const users = createUsers({ store, passwords: counting, now: () => 5, observe: event => events.push(event) })
    await users.register({ username: 'Somebody@Example.com', password: 'postman' })
    return { users, events, hashes: () => hashes, close: real.close }
  }

  it('are verified by their password, and both kinds of no cost exactly one hash', async () => {
    const { users, events, hashes, close } = await openUsers()
    expect(await users.verify({ username: 'somebody@example.com', password: 'postman' }, never)).to.include({
      username: 'somebody@example.com',
      credentialVersion: 1,
      createdAt: 5,
    })
    expect(await users.verify({ username: 'somebody@example.com', password: 'wrong' }, never)).to.equal(null)
    expect(hashes()).to.equal(2)
    expect(await users.verify({ username: 'nobody@example.com', password: 'postman' }, never)).to.equal(null)
    expect(hashes()).to.equal(3)
    expect(events.map(event => ('reason' in event ? event.reason : event.type))).to.deep.equal([
      'login succeeded',
      'wrong password',
      'unknown user',
    ])
    await close()
  })

  it('have one username, in whatever case and composition it is typed', async () => {
    const { users, close } = await openUsers()
    expect(await users.verify({ username: 'SOMEBODY@EXAMPLE.COM', password: 'postman' }, never)).to.not.equal(null)
    expect(await users.register({ username: 'sOmebody@example.com', password: 'other' })).to.equal(null)
    await close()
  })

  it('never tell what was typed as a username: it may be a password', async () => {
    const { users, events, close } = await openUsers()
    await users.verify({ username: 'hunter2-by-mistake', password: 'x' }, never)
    expect(JSON.stringify(events)).to.not.include('hunter2')
    await close()
  })
})
