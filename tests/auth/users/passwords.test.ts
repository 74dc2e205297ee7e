// users/passwords.ts and users/users.ts: which passwords match, what they cost, and what happens when the queue is full.
import { readdirSync, readFileSync } from 'node:fs'
import { getPriority } from 'node:os'
import bcrypt from 'bcryptjs'
import { expect } from 'chai'
import fc from 'fast-check'
import { openUserStore } from '../../../services/auth/stores/memory/userStore.ts'
import type { UserStore } from '../../../services/auth/stores/userPort.ts'
import { serviceAccountMark } from '../../../services/auth/users/directory.ts'
import { startHashThreads } from '../../../services/auth/users/hashThreads.ts'
import { openPasswords, type Passwords } from '../../../services/auth/users/passwords.ts'
import { createUsers, type UserEvent } from '../../../services/auth/users/users.ts'
import type { AppError } from '../../../shared/http/errors.ts'
import { hashThreads } from '../../support/hashThreads.ts'

const client = { address: '192.0.2.1' }
const owner = { ...client, account: 'somebody' }

describe('passwords', () => {
  let passwords: Passwords
  before(async () => {
    // Cost 4 is bcrypt's minimum: these tests do not measure how long a hash takes.
    passwords = await openPasswords({ cost: 4, threads: hashThreads, maxQueue: 1000, maxPerAccount: 1000 })
  })
  after(() => passwords.close())

  const matches = async (password: string, other: string) =>
    passwords.verify(other, await passwords.hash(password, owner), owner)

  it('are stored with their scheme and a salt, never the same twice', async () => {
    const [first, second] = [await passwords.hash('postman', owner), await passwords.hash('postman', owner)]
    expect(first).to.match(/^hmac-sha256\+bcrypt:\$2b\$04\$/)
    expect(first).to.not.equal(second)
  })

  it('match every text with the same NFKC form, and nothing else', async () => {
    const units = [
      'a',
      'A',
      ' ',
      '\0',
      'é',
      'e\u0301',
      'e',
      '\u0301',
      'ﬁ',
      'fi',
      'Å',
      '\u212b',
      'Ａ',
      '🔑',
      '\u{10ffff}',
    ]
    const text = fc.string({ unit: fc.constantFrom(...units), maxLength: 90 })
    // Each pair is nearly the same text, because two independent texts would never match.
    const twist = fc.constantFrom<(password: string) => string>(
      password => password.normalize('NFC'),
      password => password.normalize('NFD'),
      password => password.normalize('NFKD'),
      password => `${password}\0`,
      password => password.slice(0, -1).toWellFormed(),
      password => password.toLowerCase(),
      password => password.trim(),
      password => password.padEnd(72, 'x'),
    )
    const seen = new Set<boolean>()
    await fc.assert(
      fc.asyncProperty(text, text, twist, async (password, other, twist) => {
        expect(await matches(password, password)).to.equal(true)
        for (const typed of [other, twist(password)]) {
          const isSame = typed.normalize('NFKC') === password.normalize('NFKC')
          expect(await matches(password, typed)).to.equal(isSame)
          seen.add(isSame)
        }
      }),
      { numRuns: 100 },
    )
    expect(seen.size).to.equal(2)
  })

  it('that differ only after byte 72 do not match', async () => {
    expect(await matches('x'.repeat(72), 'x'.repeat(73))).to.equal(false)
    expect(await matches(`${'é'.repeat(36)}a`, `${'é'.repeat(36)}b`)).to.equal(false)
    expect(await matches(`${'é'.repeat(36)}`, 'é'.repeat(37))).to.equal(false)
    expect(await matches('🔑'.repeat(64), '🔑'.repeat(63))).to.equal(false)
  })

  it('that differ by a NUL do not match', async () => {
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

  it('match no stored value that is empty, malformed, of another scheme, or of an extreme cost', async () => {
    const bare = bcrypt.hashSync('postman', 4)
    const ours = await passwords.hash('postman', owner)
    const rows = [null, '', 'postman', `${bare}x`, ` ${bare}`, `$2x${bare.slice(3)}`, `${ours}x`, ours.slice(0, -1)]
    for (const cost of ['00', '03', '17', '31', '99']) {
      rows.push(bare.replace('$04$', `$${cost}$`), ours.replace('$04$', `$${cost}$`))
    }
    for (const row of rows) expect(await passwords.verify('postman', row, owner), `${row}`).to.equal(false)
    expect(await passwords.verify('', null, owner)).to.equal(false)
    expect(await passwords.verify('', '', owner)).to.equal(false)
  })

  describe('stored by others as bare bcrypt hashes', () => {
    const bareOf = (password: string, minor = 'b') => bcrypt.hashSync(password, 4).replace('$2b$', `$2${minor}$`)

    it('match, and are outdated whatever their cost', async () => {
      for (const minor of ['a', 'b', 'y']) {
        const stored = bareOf('postman', minor)
        expect(await passwords.verify('postman', stored, owner), stored).to.equal(true)
        expect(await passwords.verify('postmen', stored, owner), stored).to.equal(false)
        for (const row of [stored, stored.replace('$04$', '$12$')]) expect(passwords.isOutdated(row)).to.equal(true)
      }
      expect(passwords.isOutdated(await passwords.hash('postman', owner))).to.equal(false)
      for (const row of ['', 'postman', bareOf('postman').replace('$04$', '$31$')]) {
        expect(passwords.isOutdated(row)).to.equal(false)
      }
    })

    it('match exactly as they were typed, because other services did not normalise them', async () => {
      const stored = bareOf('cafe\u0301')
      expect(await passwords.verify('cafe\u0301', stored, owner)).to.equal(true)
      expect(await passwords.verify('caf\u00e9', stored, owner)).to.equal(false)
    })

    it('match nothing longer than 72 bytes and nothing with a NUL, because bcrypt alone would accept other passwords', async () => {
      const long = 'x'.repeat(72)
      expect(await passwords.verify(long, bareOf(long), owner)).to.equal(true)
      for (const [password, stored] of [
        [`${long}x`, bareOf(long)],
        [`${long}x`, bareOf(`${long}x`)],
        ['é'.repeat(37), bareOf('é'.repeat(36))],
        ['abc\0abc', bareOf('abc')],
        ['abc\0', bareOf('abc\0')],
        ['\0', bareOf('')],
      ] as const) {
        expect(await passwords.verify(password, stored, owner), JSON.stringify(password)).to.equal(false)
      }
    })
  })

  describe('cost one hash of the configured cost', () => {
    const cost = 8
    let passwords: Passwords
    before(async () => {
      passwords = await openPasswords({ cost, threads: hashThreads, maxQueue: 10, maxPerAccount: 10 })
    })
    after(() => passwords.close())

    const workOf = async (password: string, row: string | null) => {
      const before = passwords.hashes()
      const matches = await passwords.verify(password, row, owner)
      return { matches, hashes: passwords.hashes() - before }
    }

    const digested = async (cost: number) => {
      const { hash, close } = await openPasswords({ cost, threads: hashThreads, maxQueue: 10, maxPerAccount: 10 })
      const stored = await hash('postman', owner)
      await close()
      return stored
    }
    const rows: [string, () => Promise<string | null> | string | null][] = [
      ['no user', () => null],
      ['an empty row', () => ''],
      ['a malformed row', () => '$2b$31$'],
      ['a hash that is cut off', async () => (await digested(4)).slice(0, -1)],
      ...[4, 5, 7, 8].map((cost): [string, () => Promise<string>] => [`a hash of cost ${cost}`, () => digested(cost)]),
      ...[4, 5, 7, 8].map((cost): [string, () => string] => [
        `a bare bcrypt hash of cost ${cost}`,
        () => bcrypt.hashSync('postman', cost),
      ]),
    ]
    for (const [what, make] of rows) {
      it(`against ${what}`, async () => {
        const row = await make()
        expect(await workOf('wrong', row)).to.deep.equal({ matches: false, hashes: 1 })
        const isGood = /^a (bare bcrypt )?hash of/.test(what)
        expect(await workOf('postman', row)).to.deep.equal({ matches: isGood, hashes: 1 })
      })
    }

    it('but more against a hash of a higher cost', async () => {
      expect(await workOf('wrong', bcrypt.hashSync('postman', cost + 1))).to.deep.equal({ matches: false, hashes: 2 })
    })
  })

  it('cost the same whether or not the user exists, and for a stored value that is no hash', async () => {
    const stored = await passwords.hash('postman', owner)
    const time = async (row: string | null) => {
      const startedAt = performance.now()
      await passwords.verify('wrong', row, owner)
      return performance.now() - startedAt
    }
    const rounds: { known: number; unknown: number; malformed: number }[] = []
    for (let i = 0; i < 60; i++) {
      rounds.push({ known: await time(stored), unknown: await time(null), malformed: await time('$2b$31$') })
    }
    // Each round compares three calls that ran one after another, so that a slow machine slows all of them.
    const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length / 2] as number
    for (const other of ['unknown', 'malformed'] as const) {
      const ratio = median(rounds.map(round => round.known / round[other]))
      expect(ratio, other).to.be.within(0.5, 2) // without a hash the call would take a hundredth of the time
    }
  })
})

describe('the threads that hash', () => {
  it('yield to the thread that validates if there are fewer cores than threads', async function () {
    if (process.platform !== 'linux') {
      console.log('  not tested: the priority of threads, which only Linux has')
      this.skip()
    }
    const nices = () =>
      readdirSync('/proc/self/task').map(thread => {
        const fields = readFileSync(`/proc/self/task/${thread}/stat`, 'utf8').split(') ')[1]?.split(' ') as string[]
        return { isMain: Number(thread) === process.pid, nice: Number(fields[16]) }
      })
    const before = nices().filter(({ nice }) => nice === 5).length
    const passwords = await openPasswords({ cost: 4, threads: startHashThreads(2), maxQueue: 10, maxPerAccount: 1000 })
    await Promise.all(Array.from({ length: 8 }, () => passwords.hash('postman', owner)))
    expect(nices().filter(({ nice }) => nice === 5).length).to.equal(before + 2)
    expect(nices().find(({ isMain }) => isMain)?.nice).to.equal(getPriority())
    passwords.close()
  })

  it('are replaced when one dies: its job is rejected, and waiting jobs are served', async () => {
    const passwords = await openPasswords({ cost: 4, threads: hashThreads, maxQueue: 10, maxPerAccount: 1000 })
    const bare = bcrypt.hashSync('postman', 4)
    const notText = 5 as unknown as string // a number makes bcrypt throw in the thread; no text would
    const deadly = passwords.verify(notText, bare, owner).catch(({ code }: AppError) => code)
    const next = passwords.verify('postman', bare, owner)
    expect(await deadly).to.equal('internal')
    expect(await next).to.equal(true)
    expect(passwords.queued()).to.equal(0)
    passwords.close()
  })
})

describe('the hash queue', () => {
  it('refuses at once what does not fit, and serves the rest', async () => {
    const passwords = await openPasswords({ cost: 8, threads: hashThreads, maxQueue: 3, maxPerAccount: 1000 })
    const outcomes = await Promise.all(
      Array.from({ length: 10 }, () =>
        passwords.hash('postman', owner).then(
          () => 'hashed',
          (error: AppError) => `${error.code} ${error.headers['Retry-After']}`,
        ),
      ),
    )
    const hashed = ['hashed', 'hashed', 'hashed', 'hashed']
    expect(outcomes).to.deep.equal([...hashed, ...Array(6).fill('unavailable 2')])
    passwords.close()
  })

  it('accepts work from another network, and refuses the newest job of the network that filled it', async () => {
    const passwords = await openPasswords({ cost: 8, threads: hashThreads, maxQueue: 3, maxPerAccount: 100 })
    const order: string[] = []
    const ask = (address: string, account: string) =>
      passwords.hash('postman', { address, account }).then(
        () => order.push(account),
        (error: AppError) => order.push(`${account} ${error.code}`),
      )
    await Promise.all([
      ...['a1', 'a2', 'a3', 'a4'].map(account => ask('2001:db8::1', account)),
      ask('192.0.2.1', 'b'),
      ask('2001:db8::2', 'a5'), // in the same /64
    ])
    expect(order.slice(0, 2)).to.have.members(['a4 unavailable', 'a5 unavailable'])
    expect(order.slice(2)).to.have.members(['a1', 'a2', 'a3', 'b'])
    expect(order.indexOf('b')).to.be.below(order.indexOf('a3'))
    passwords.close()
  })

  it('accepts a limited number of jobs per account, whatever networks they come from', async () => {
    const passwords = await openPasswords({ cost: 8, threads: startHashThreads(2), maxQueue: 100, maxPerAccount: 3 })
    const outcomes = await Promise.all(
      Array.from({ length: 10 }, (_, i) =>
        passwords
          .verify('postman', null, { address: `192.0.2.${i}`, account: 'somebody' })
          .catch((error: AppError) => `${error.code} ${error.headers['Retry-After']}`),
      ),
    )
    expect(outcomes.filter(outcome => outcome === false)).to.have.length(3)
    expect(outcomes.filter(outcome => outcome === 'unavailable 2')).to.have.length(7)
    expect(await passwords.verify('postman', null, owner)).to.equal(false)
    passwords.close()
  })

  it('drops the waiting job of a client that disconnects', async () => {
    const passwords = await openPasswords({ cost: 8, threads: hashThreads, maxQueue: 3, maxPerAccount: 1000 })
    const gone = new AbortController()
    const first = passwords.hash('first', owner)
    const left = passwords
      .verify('second', null, { ...owner, signal: gone.signal })
      .catch((error: AppError) => error.code)
    expect(passwords.queued()).to.equal(1)
    gone.abort()
    expect(passwords.queued()).to.equal(0)
    expect(await left).to.equal('unavailable')
    const late = passwords.hash('third', { ...owner, signal: gone.signal }).catch((error: AppError) => error.code)
    expect(passwords.queued()).to.equal(0) // the client disconnected before its turn
    expect(await late).to.equal('unavailable')
    expect(await first).to.be.a('string')
    passwords.close()
  })

  it('never blocks the thread that validates', async () => {
    const passwords = await openPasswords({ cost: 10, threads: hashThreads, maxQueue: 10, maxPerAccount: 1000 })
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    await passwords.hash('postman', owner)
    clearInterval(timer)
    expect(turns).to.be.above(5) // it would be 0 if the hash ran on the main thread and blocked it for 50 ms
    passwords.close()
  })

  it('rejects waiting jobs when it is closed', async () => {
    const passwords = await openPasswords({ cost: 8, threads: hashThreads, maxQueue: 3, maxPerAccount: 1000 })
    const outcomes = ['first', 'second'].map(password =>
      passwords.hash(password, owner).catch((error: AppError) => error.code),
    )
    passwords.close()
    expect(await Promise.all(outcomes)).to.deep.equal(['unavailable', 'unavailable'])
    expect(await passwords.hash('third', owner).catch((error: AppError) => error.code)).to.equal('unavailable')
  })
})

describe('users', () => {
  async function openUsers() {
    const events: UserEvent[] = []
    const real = await openPasswords({ cost: 4, threads: hashThreads, maxQueue: 100, maxPerAccount: 1000 })
    let hashes = 0
    const counting: Passwords = {
      ...real,
      hash(...args) {
        hashes++
        return real.hash(...args)
      },
      verify(...args) {
        hashes++
        return real.verify(...args)
      },
    }
    const memory = await openUserStore()
    const asked: string[] = []
    const store: UserStore = {
      ...memory,
      findByUsername(username) {
        asked.push(username)
        return memory.findByUsername(username)
      },
    }
    const users = createUsers({
      store,
      passwords: counting,
      rules: { minLength: 15 },
      addressesOnly: false,
      revokeTokens: async () => {},
      now: () => 5,
      emit: event => events.push(event),
    })
    await users.insert({ username: 'Somebody@Example.com', passwordHash: await real.hash('postman', owner) })
    return { users, events, asked, hashes: () => hashes, close: real.close }
  }

  it('are verified by their password, and both kinds of failure cost exactly one hash', async () => {
    const { users, events, hashes, close } = await openUsers()
    const right = await users.verify({ username: 'somebody@example.com', password: 'postman' }, client)
    expect(right).to.have.nested.include({
      outcome: 'verified',
      'user.username': 'somebody@example.com',
      'user.credentialVersion': 1,
      'user.createdAt': 5,
    })
    const wrong = await users.verify({ username: 'somebody@example.com', password: 'wrong' }, client)
    expect(wrong.outcome).to.equal('wrong_password')
    expect(hashes()).to.equal(2)
    const unknown = await users.verify({ username: 'nobody@example.com', password: 'postman' }, client)
    expect(unknown).to.deep.equal({ outcome: 'wrong_password', userId: null })
    expect(hashes()).to.equal(3)
    expect(events.map(event => ('reason' in event ? event.reason : event.type))).to.deep.equal([
      'user_registered',
      'login_succeeded',
      'wrong_password',
      'unknown_user',
    ])
    await close()
  })

  it('who cannot log in get the same refusal as unknown users, after exactly one hash', async () => {
    const { users, events, hashes, close } = await openUsers()
    const passwordHash = await users.hash({ username: 'somebody', password: 'postman' }, client)
    const insert = async (username: string) => (await users.insert({ username, passwordHash }))?.id as string
    await users.disable(await insert('disabled'))
    await users.remove(await insert('deleted'))
    await users.insert({ username: 'unconfirmed', passwordHash }, { confirmed: false })
    await users.insert({ username: 'malformed', passwordHash: '$2b$31$' })
    await users.insert({ username: 'service account', passwordHash: serviceAccountMark })
    for (const [username, reason] of [
      ['disabled', 'disabled'],
      ['unconfirmed', 'unconfirmed'],
      ['malformed', 'wrong_password'],
      ['service account', 'wrong_password'],
      ['deleted', 'unknown_user'],
      ['never there', 'unknown_user'],
      ['a\0b', 'unknown_user'],
      ['a\ud83d', 'unknown_user'],
      [' ', 'unknown_user'],
      ['', 'unknown_user'],
      ['x'.repeat(100_000), 'unknown_user'],
    ] as const) {
      const before = hashes()
      const result = await users.verify({ username, password: 'postman' }, client)
      expect(result.outcome, username).to.equal('wrong_password')
      expect(hashes() - before, username).to.equal(1)
      expect(events.at(-1)).to.include({ type: 'login_failed', reason })
    }
    await close()
  })

  it('are not looked up by usernames that some databases cannot store', async () => {
    const { users, asked, close } = await openUsers()
    for (const username of [
      '',
      ' ',
      ' a',
      'a\0b',
      'a\nb',
      'a\ud83d',
      '\ufdd0',
      'x'.repeat(257),
      '\ufdfa'.repeat(100),
    ]) {
      expect(await users.verify({ username, password: 'postman' }, client)).to.include({ outcome: 'wrong_password' })
      expect(await users.findByUsername(username)).to.equal(null)
    }
    expect(asked).to.deep.equal([])
    expect(await users.findByUsername('x'.repeat(256))).to.equal(null)
    expect(asked).to.deep.equal(['x'.repeat(256)])
    await close()
  })

  it('have one username in every case and Unicode composition', async () => {
    const { users, close } = await openUsers()
    const result = await users.verify({ username: 'SOMEBODY@EXAMPLE.COM', password: 'postman' }, client)
    expect(result.outcome).to.equal('verified')
    expect(await users.insert({ username: 'sOmebody@example.com', passwordHash: 'other' })).to.equal(null)
    await close()
  })

  it('emit nothing that was typed as a username, because it may be a password', async () => {
    const { users, events, close } = await openUsers()
    await users.verify({ username: 'hunter2-by-mistake', password: 'x' }, client)
    expect(JSON.stringify(events)).to.not.include('hunter2')
    await close()
  })
})
