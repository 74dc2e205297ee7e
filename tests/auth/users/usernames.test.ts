// users/usernames.ts: which strings are the same username, and which cannot be chosen.
import { expect } from 'chai'
import fc from 'fast-check'
import { openUserStore } from '../../../services/auth/stores/index.ts'
import { openPasswords } from '../../../services/auth/users/passwords.ts'
import { normalise } from '../../../services/auth/users/usernames.ts'
import { createUsers } from '../../../services/auth/users/users.ts'
import { ask } from '../../support/client.ts'
import { hashThreads } from '../../support/hashThreads.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { newUserAt } from '../../support/storeFixtures.ts'
import { freshPlace } from '../../support/stores.ts'

const password = 'CANARY tandem over the hill, twice'
const withCaron = '\u01f0oe' // one code point
const capitalCaron = 'J\u030coe' // two code points; its lower case is not in NFKC

const isStable = (text: string) => normalise(normalise(text)) === normalise(text)

describe('usernames', () => {
  after(closeServers)

  describe('normalised', () => {
    it('do not change when normalised again: every code point of Unicode', () => {
      const unstable: string[] = []
      for (let codePoint = 0; codePoint <= 0x10ffff; codePoint++) {
        const text = String.fromCodePoint(codePoint)
        for (const name of [text, `${text}\u030c`, `J${text}`]) {
          if (!isStable(name)) unstable.push(codePoint.toString(16))
        }
      }
      expect(unstable).to.deep.equal([])
    }).timeout(60_000)

    it('do not change when normalised again: any string', () => {
      const combining = fc.constantFrom(
        'J',
        'W',
        'T',
        'ß',
        'Σ',
        'İ',
        '\u030c',
        '\u030a',
        '\u0308',
        '\u0345',
        '\u0390',
        'ﬃ',
        'ﷺ',
      )
      fc.assert(
        fc.property(
          fc.oneof(
            fc.string({ unit: 'binary' }),
            fc.array(combining).map(parts => parts.join('')),
          ),
          isStable,
        ),
        { numRuns: 5000 },
      )
    })

    it('are the same name however accents and capitals are typed', () => {
      expect(normalise(capitalCaron)).to.equal(withCaron)
      for (const name of ['Ann', 'ÅNGSTRÖM', 'ǅAK', capitalCaron]) {
        expect(normalise(name.normalize('NFD')), name).to.equal(normalise(name.normalize('NFC')))
        expect(normalise(name.toLowerCase()), name).to.equal(normalise(name))
      }
    })
  })

  it('that differ only in the composition of a capital are one account', async () => {
    const { url } = await startAuth()
    const register = (username: string) => ask('POST', `${url}/users`, null, { username, password })
    expect(await register(withCaron)).to.include({ status: 201 })
    expect(await register(capitalCaron)).to.include({ status: 409 })
    expect(await ask('POST', `${url}/login`, null, { username: capitalCaron, password })).to.include({ status: 200 })
  })

  it('with invisible characters are refused, and the answer names the reason', async () => {
    const { url } = await startAuth({ env: { REGISTRATION_LIMIT_PER_ADDRESS: '1000' } })
    const invisible = {
      'zero-width space': '\u200b',
      'zero-width joiner': '\u200d',
      'byte order mark': '\ufeff',
      'soft hyphen': '\u00ad',
      'right-to-left override': '\u202e',
      'left-to-right isolate': '\u2066',
      'Arabic letter mark': '\u061c',
      'variation selector': '\ufe0f',
      'combining grapheme joiner': '\u034f',
      'Hangul filler': '\u3164',
      'tag letter': '\u{e0061}',
    }
    for (const [what, character] of Object.entries(invisible)) {
      for (const username of [`ad${character}min`, `${character}admin`, `admin${character}`]) {
        const answer = await ask('POST', `${url}/users`, null, { username, password })
        expect(answer, what).to.include({ status: 400 })
        expect(answer.body, what).to.include({ detail: 'username: expected no invisible characters' })
      }
    }
  })

  describe('that an earlier version stored', () => {
    for (const [what, stored, typed] of [
      ['in a form that is not final', 'j\u030coe', capitalCaron],
      ['with an invisible character', 'ad\u200bmin', 'AD\u200bmin'],
    ] as const) {
      it(`still log in as they were typed: ${what}`, async () => {
        const place = await freshPlace('sqlite')
        const store = await openUserStore(place.url)
        const hasher = await openPasswords({ cost: 4, threads: hashThreads, maxQueue: 1, maxPerAccount: 1 })
        const passwordHash = await hasher.hash(password, { address: 'local', account: stored })
        await store.insert(newUserAt(1, { id: 'old', username: stored, passwordHash, confirmedAt: 1 }))
        hasher.close()
        await store.close()
        const { url, service } = await startAuth({ env: { USER_STORE_URL: place.url } })
        const login = await ask<{ token: string }>('POST', `${url}/login`, null, { username: typed, password })
        expect(login).to.include({ status: 200 })
        const me = await ask('GET', `${url}/users/me`, login.body.token)
        expect(me.body).to.include({ id: 'old', username: stored })
        const again = await ask('POST', `${url}/users`, null, { username: typed, password })
        expect(again.status, 'the name is not free').to.be.oneOf([400, 409])
        await service.close()
        await place.remove()
      })
    }

    it('are found before the account with the final form', async () => {
      const store = await openUserStore('memory:')
      const passwords = await openPasswords({ cost: 4, threads: hashThreads, maxQueue: 4, maxPerAccount: 4 })
      const rules = { minLength: 15 }
      const revokeTokens = async () => {}
      const users = createUsers({
        store,
        passwords,
        rules,
        addressesOnly: false,
        revokeTokens,
        now: () => 1,
        emit: () => {},
      })
      await store.insert(newUserAt(1, { id: 'old', username: 'j\u030coe' }))
      await store.insert(newUserAt(1, { id: 'new', username: withCaron }))
      expect(await users.findByUsername(capitalCaron)).to.include({ id: 'old' })
      expect(await users.findByUsername(withCaron)).to.include({ id: 'new' })
      passwords.close()
      await store.close()
    })
  })
})
