import { expect } from 'chai'
import { type AuthApi, authApi, expectProblem, phrases, rawLogin } from '../../support/authApi.ts'
import { createClock } from '../../support/clock.ts'
import { demo } from '../../support/credentials.ts'
import { newUsername } from '../../support/factories.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { freshPlace, type Place, schemesHere } from '../../support/stores.ts'

const schemes = await schemesHere(['memory', 'sqlite', 'postgres'])

for (const scheme of schemes) {
  describe(`users at ${scheme}:`, () => {
    const clock = createClock()
    let place: Place
    let client: AuthApi
    before(async () => {
      place = await freshPlace(scheme)
      const env = { USER_STORE_URL: place.url, TOKEN_STORE_URL: place.url, TOKEN_LIMIT_PER_USER: '1000' }
      client = authApi(await startAuth({ env, now: clock.now }))
    })
    afterEach('the log has no password and no internal error', () => client.expectQuietLog())
    after(async () => {
      await closeServers()
      await place.remove()
    })

    it('can have any username without control characters and without blanks at its ends', async () => {
      const usernames = [
        '__proto__',
        'constructor',
        'toString',
        `o'"; drop table x --`,
        '🦊🔑',
        'שלום@דוגמה',
        '%00',
        'null',
      ]
      await Promise.all(
        [...usernames, 'x'.repeat(256)].map(async username => {
          const user = { username, password: phrases.first }
          const { status, body, text } = await client.register(user)
          expect(status, text).to.equal(201)
          expect(body.username).to.equal(username.toLowerCase())
          const token = await client.session(user)
          expect((await client.get('/users/me', token)).body).to.deep.equal(body)
          expect(await client.find(username)).to.include({ id: body.id })
        }),
      )
    })

    it('with any other username are 400, and logging in with it is 401 as for an unknown user', async () => {
      const unknown = await rawLogin(client.url, { username: newUsername(), password: phrases.first })
      expect(unknown).to.match(/^HTTP\/1\.1 401 /)
      const tooLong = '\ufdfa'.repeat(100) // 1800 characters after normalisation
      const names = ['\0', 'a\0b', 'a\nb', 'a\u2028b', '\ufdd0', ' a', tooLong]
      const others = ['a\tb', '\x7f', 'a\u0085b', 'a\u2029b', 'a ', '\u00a0a', '\u3000', '   ']
      for (const username of [...names, ...others]) {
        const answer = await client.register({ username, password: phrases.first })
        expectProblem(answer, 400, 'invalid_request')
        expect(answer.body)
          .to.have.property('detail')
          .match(/^username: expected /)
      }
      const answers = await Promise.all(
        names.map(username => rawLogin(client.url, { username, password: phrases.first })),
      )
      for (const answer of answers) expect(answer).to.equal(unknown)
    })

    it('are 400 on every route if the username is empty, too long or half a character', async () => {
      for (const username of ['', 'x'.repeat(257), '🔑'.repeat(257), 'a\ud83d', '\udd11']) {
        const credentials = { username, password: phrases.first }
        for (const answer of [await client.register(credentials), await client.logIn(credentials)]) {
          expectProblem(answer, 400, 'invalid_request')
          expect(answer.body)
            .to.have.property('detail')
            .match(/^username: expected /)
        }
      }
    })

    describe('PATCH /users/me', () => {
      it('is 401 with a wrong current password: nothing changes, and the session stays', async () => {
        const { credentials, token, user } = await client.newUser()
        const other = await client.issueTo(user.id)
        for (const current of [phrases.wrong, phrases.second, `${phrases.first}\0`]) {
          const answer = await client.change(token, current, phrases.second)
          expectProblem(answer, 401, 'invalid_credentials')
          expect(answer.headers.get('www-authenticate')).to.equal('Bearer realm="latchkey"')
        }
        expect((await client.get('/users/me', token)).body).to.deep.equal(user)
        expect(await client.live([token, other])).to.have.length(2)
        expect((await client.logIn({ ...credentials, password: phrases.second })).status).to.equal(401)
        expect((await client.logIn(credentials)).status).to.equal(200)
      })

      it('is 400 for a password that breaks a rule, and nothing changes', async () => {
        const { credentials, token } = await client.newUser()
        for (const password of [
          phrases.second.slice(0, 14),
          '123456789012345',
          credentials.username,
          'x'.repeat(257),
        ]) {
          const answer = await client.change(token, phrases.first, password)
          expectProblem(answer, 400, 'invalid_request')
          expect(answer.body)
            .to.have.property('detail')
            .match(/^password: /)
        }
        expect((await client.logIn(credentials)).status).to.equal(200)
      })

      it('ends every other session and token at once, and keeps the current session and its secret', async () => {
        const { user, credentials, token } = await client.newUser()
        const others = [await client.session(credentials)]
        for (let i = 0; i < 48; i++) others.push(await client.issueTo(user.id))
        others.push(await client.issueTo(user.id, 'fixed'), await client.issueTo(user.id, 'single-use'))
        const link = await client.issueTo(user.id, 'single-use', 'reset')
        const bystander = (await client.newUser()).token
        expect(await client.live([token, ...others])).to.have.length(52)
        expect(await client.live([link], 'reset')).to.have.length(1)
        clock.advance(1000)

        const { status, body } = await client.change(token, phrases.first, phrases.second)
        expect(await client.live([...others, token, bystander])).to.deep.equal([token, bystander])
        expect(await client.live([link], 'reset')).to.deep.equal([])
        expect(status).to.equal(200)
        expect(body).to.deep.equal(user)

        const { body: list } = await client.get<{ sessions: { id: string; current: boolean }[] }>('/sessions', token)
        expect(list.sessions.map(({ id, current }) => ({ id, current }))).to.deep.equal([
          { id: token.slice(3, 17), current: true },
        ])
        const renewed = (await client.post('/renew', token)).body['token'] as string
        expect(await client.live([token, renewed])).to.deep.equal([renewed])

        expect((await client.logIn(credentials)).status).to.equal(401)
        const fresh = await client.session({ ...credentials, password: phrases.second })
        expect((await client.change(renewed, phrases.second, phrases.third)).status).to.equal(200)
        expect(await client.live([fresh, renewed])).to.deep.equal([renewed])
      })

      it('beats every concurrent log-in with the old password', async () => {
        const { credentials, token } = await client.newUser()
        const passwords = Array.from({ length: 4 }, (_, i) =>
          i === 0 ? credentials.password : `${phrases.second} ${i}`,
        )
        const counts = { issued: 0, refused: 0 }
        for (const [i, password] of passwords.slice(1).entries()) {
          const old = { ...credentials, password: passwords[i] as string }
          let isChanged = false
          const issued: string[] = []
          const keepLoggingIn = async () => {
            while (!isChanged) {
              const answer = await client.logIn(old)
              if (answer.status === 200) issued.push(answer.body['token'] as string)
              else {
                expectProblem(answer, 401, 'invalid_credentials')
                counts.refused++
              }
            }
          }
          // On a busy machine, more rivals would exceed the deadline of a store.
          const rivals = Array.from({ length: scheme === 'memory' ? 20 : 8 }, keepLoggingIn)
          while (issued.length === 0) await new Promise(setImmediate)
          const change = await client.change(token, old.password, password)
          expect(change.status, change.text).to.equal(200)
          expect(await client.live([...issued, token])).to.deep.equal([token])
          isChanged = true
          await Promise.all(rivals)
          expect(await client.live([...issued, token])).to.deep.equal([token])
          counts.issued += issued.length
        }
        expect(counts.issued).to.be.above(0)
        expect(counts.refused).to.be.above(0)
        expect((await client.logIn({ ...credentials, password: passwords.at(-1) as string })).status).to.equal(200)
      })

      it('succeeds for one of two concurrent changes', async () => {
        const { user, credentials, token } = await client.newUser()
        const sessions = [token, await client.issueTo(user.id)]
        const wanted = [phrases.second, phrases.third]
        const answers = await Promise.all(
          sessions.map((session, i) => client.change(session, phrases.first, wanted[i] as string)),
        )
        const winner = answers.findIndex(({ status }) => status === 200)
        expect(answers[winner]?.status).to.equal(200)
        expect(answers[1 - winner]?.status).to.be.oneOf([401, 409])
        expect(await client.live(sessions)).to.deep.equal([sessions[winner]])
        const statuses: number[] = []
        for (const password of [phrases.first, ...wanted]) {
          statuses.push((await client.logIn({ ...credentials, password })).status)
        }
        expect(statuses).to.deep.equal(winner === 0 ? [401, 200, 401] : [401, 401, 200])
      })
    })

    describe('DELETE /users/me', () => {
      it('is 401 with a wrong current password, and nothing changes', async () => {
        const { user, credentials, token } = await client.newUser()
        expectProblem(await client.remove(token, phrases.wrong), 401, 'invalid_credentials')
        expect((await client.get('/users/me', token)).body).to.deep.equal(user)
        expect((await client.logIn(credentials)).status).to.equal(200)
      })

      it('is 204, ends every session, and leaves no trace of the user', async () => {
        const { user, credentials, token } = await client.newUser()
        const others = [await client.session(credentials), await client.issueTo(user.id, 'fixed')]
        const { status, text } = await client.remove(token, phrases.first)
        expect(await client.live([token, ...others])).to.deep.equal([])
        expect({ status, text }).to.deep.equal({ status: 204, text: '' })
        expectProblem(await client.get('/users/me', token), 401, 'invalid_token')
        const unknown = await rawLogin(client.url, { ...credentials, username: newUsername() })
        expect(unknown).to.match(/^HTTP\/1\.1 401 /)
        expect(await rawLogin(client.url, credentials)).to.equal(unknown)
        expect(await client.find(credentials.username)).to.equal(undefined)
      })

      it('frees the username for a new account', async () => {
        const { user, credentials, token } = await client.newUser()
        await client.remove(token, phrases.first)
        const next = await client.newUser({ ...credentials, password: phrases.second })
        expect(next.user.id).to.not.equal(user.id)
        expect((await client.get('/users/me', next.token)).body).to.deep.equal(next.user)
        expect((await client.logIn(credentials)).status).to.equal(401)
        expect(await client.live([token, next.token])).to.deep.equal([next.token])
      })

      it('beats every concurrent log-in', async () => {
        const { credentials, token } = await client.newUser()
        const rivals = Array.from({ length: 8 }, () => client.logIn(credentials))
        await rivals[0]
        expect((await client.remove(token, phrases.first)).status).to.equal(204)
        const answers = await Promise.all(rivals)
        const issued = answers.map(({ body }) => body['token']).filter(secret => typeof secret === 'string')
        expect(await client.live([...issued, token])).to.deep.equal([])
      })
    })

    describe('the operator', () => {
      interface Page {
        users: Record<string, unknown>[]
        next: string | null
      }
      const page = (query: string) => client.operate<Page>('GET', `/admin/users${query}`)

      it('sees every user once, page by page, and no hash', async () => {
        for (let i = 0; i < 7; i++) await client.newUser()
        const whole = (await page('?limit=200')).body
        expect(whole.next).to.equal(null)
        expect(whole.users.length).to.be.at.least(7)
        const paged: Page['users'] = []
        let next: string | null = ''
        while (next !== null) {
          const { status, body } = await page(`?limit=3${next && `&after=${next}`}`)
          expect(status).to.equal(200)
          expect(body.users.length).to.be.at.most(3)
          paged.push(...body.users)
          next = body.next
        }
        expect(paged).to.deep.equal(whole.users)
        expect(new Set(paged.map(({ id }) => id)).size).to.equal(paged.length)
        const times = ['createdAt', 'confirmedAt', 'disabledAt', 'deletedAt']
        const rights = ['roles', 'paused', 'rate']
        const members = ['id', 'username', ...times, ...rights, 'email', 'pendingEmail', 'attributes', 'serviceAccount']
        for (const user of paged) expect(Object.keys(user)).to.deep.equal(members)
        expect(JSON.stringify(whole)).to.not.match(/\$2[aby]\$|hash|bcrypt/i)
      })

      it('finds a user by the username, in any case', async () => {
        const { user } = await client.newUser({ username: `É.${newUsername()}` })
        for (const username of [user.username, user.username.toUpperCase(), user.username.normalize('NFD')]) {
          const { body } = await page(`?username=${encodeURIComponent(username)}`)
          expect(body.users.map(({ id }) => id)).to.deep.equal([user.id])
        }
        for (const username of ['nobody', '', '%00', '%ff', '%', `${user.username}x`]) {
          const { status, body } = await page(
            `?username=${username.length > 3 ? encodeURIComponent(username) : username}`,
          )
          expect({ status, users: body.users }).to.deep.equal({ status: 200, users: [] })
        }
      })

      it('can continue after an id that no user has', async () => {
        const { body: whole } = await page('?limit=200')
        for (const [after, users] of [
          ['', whole.users],
          ['%00', null],
          ['%F0%9F%94%91', null],
          ["'", null],
          ['zzz', []],
        ] as const) {
          const { status, body } = await page(`?limit=200&after=${after}`)
          expect(status).to.equal(200)
          if (users) expect(body.users).to.deep.equal(users)
        }
      })

      it('deletes a user and ends the sessions with 204; a second call is 404', async () => {
        const { user, credentials, token } = await client.newUser()
        const { status, text } = await client.operate('DELETE', `/admin/users/${user.id}`)
        expect(await client.isLive(token)).to.equal(false)
        expect({ status, text }).to.deep.equal({ status: 204, text: '' })
        expect((await client.logIn(credentials)).status).to.equal(401)
        expect((await client.register(credentials)).status).to.equal(201)
        expectProblem(await client.operate('DELETE', `/admin/users/${user.id}`), 404, 'not_found')
      })

      it('ends the sessions of a user, who can log in again', async () => {
        const { user, credentials, token } = await client.newUser()
        const bystander = (await client.newUser()).token
        expect((await client.operate('DELETE', `/admin/users/${user.id}/sessions`)).status).to.equal(204)
        expect(await client.live([token, bystander])).to.deep.equal([bystander])
        expect(await client.isLive(await client.session(credentials))).to.equal(true)
      })

      it('gets 404 for any id that no user has', async () => {
        const ids = [
          '%00',
          'a%00b',
          '..%2f',
          '%2e%2e%2fusers',
          '%E0%A4%A',
          '%ff',
          '%F0%9F%94%91',
          "'",
          '0',
          'x'.repeat(8000),
        ]
        for (const id of [...ids, '__proto__', 'null', encodeURIComponent(demo.username)]) {
          for (const path of [`/admin/users/${id}`, `/admin/users/${id}/sessions`]) {
            expectProblem(await client.operate('DELETE', path), 404, 'not_found')
          }
        }
        expect((await client.logIn(demo)).status).to.equal(200)
      })
    })
  })
}
