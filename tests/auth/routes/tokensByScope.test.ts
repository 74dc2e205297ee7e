// PATCH /tokens?scope= and the selections of GET /tokens, by the operator.
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/memory/tokenStore.ts'
import { pauseByScope } from '../../../services/auth/tokens/selection.ts'
import { createTokens, type Tokens, type TokenTerms } from '../../../services/auth/tokens/tokens.ts'
import { AppError } from '../../../shared/http/errors.ts'
import { type AuthApi, authApi, expectProblem } from '../../support/authApi.ts'
import { serviceKey } from '../../support/credentials.ts'
import { newUsername } from '../../support/factories.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { unlimited } from '../../support/storeFixtures.ts'

interface Page {
  tokens: { id: string }[]
  next: string | null
}

describe('tokens selected by the operator', () => {
  let auth: AuthApi
  let scope: string // differs in each test
  let number = 0
  before(async () => {
    auth = authApi(await startAuth())
  })
  beforeEach(() => {
    scope = `orders:${number++}`
  })
  after(closeServers)

  const issue = (own: string | null, members: object = {}) =>
    auth.issue({ kind: 'fixed', ttlSeconds: 60, ...members, ...(own !== null && { scope: own }) })
  const pause = (paused: boolean, name = scope) =>
    auth.operate<{ changed: number }>('PATCH', `/tokens?scope=${encodeURIComponent(name)}`, undefined, { paused })
  const list = async (query: string) => (await auth.operate<Page>('GET', `/tokens?${query}`)).body
  const idsOf = ({ tokens }: Page) => tokens.map(({ id }) => id)

  it('PATCH /tokens?scope= pauses exactly those whose scope contains the name, until it resumes them', async () => {
    const { user, token: session } = await auth.newUser()
    const paused = [
      await issue(scope),
      await issue(`reports ${scope}`, { kind: 'sliding', userId: user.id }),
      await issue(`${scope} reports`, { kind: 'single-use' }),
      await issue(`a ${scope} b`, { purpose: 'export' }),
    ].map(({ token }) => token)
    const others = [
      await issue(`${scope}:all`),
      await issue(`all:${scope}`),
      await issue(scope.toUpperCase()),
      await issue(null),
    ].map(({ token }) => token)
    const live = async () => [
      ...(await auth.live([...paused, session, ...others])),
      ...(await auth.live(paused, 'export')),
    ]
    const all = await live()
    expect(all).to.have.members([...paused, session, ...others])
    const { status, body, text } = await pause(true)
    expect(status, text).to.equal(200)
    expect(body).to.deep.equal({ changed: 4 })
    expect(await live()).to.deep.equal([session, ...others])
    expect((await pause(false)).body).to.deep.equal({ changed: 4 })
    expect(await live()).to.deep.equal(all)
  })

  it('a token that is issued after the pause is not paused', async () => {
    await issue(scope)
    await pause(true)
    expect(await auth.isLive((await issue(scope)).token)).to.equal(true)
  })

  it('a name that no token has changes none', async () => {
    expect((await pause(true)).body).to.deep.equal({ changed: 0 })
    expect((await pause(true, `"`)).status).to.equal(400)
  })

  it('resuming resumes a token that was paused singly; it counts tokens that obeyed before', async () => {
    const { token, tokenId } = await issue(scope)
    await auth.operate('PATCH', `/tokens/${tokenId}`, undefined, { paused: true })
    expect((await pause(true)).body).to.deep.equal({ changed: 1 })
    expect((await pause(false)).body).to.deep.equal({ changed: 1 })
    expect(await auth.isLive(token)).to.equal(true)
  })

  it('bad input is 400 and names what is expected; no other member can be changed; it needs the admin key', async () => {
    const { token } = await issue(scope)
    const expected = 'scope (one name, such as orders:write)'
    for (const query of [
      '',
      '?scope=',
      '?scope=a%20b',
      '?scope=a&scope=b',
      '?scope=a&limit=5',
      '?scope=%C3%A4',
      '?a=b',
    ]) {
      const answer = await auth.operate('PATCH', `/tokens${query}`, undefined, { paused: true })
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.text, query).to.include(expected)
    }
    for (const [change, expected] of [
      [{}, 'paused: expected true or false'],
      [{ paused: 'yes' }, 'paused: expected true or false'],
      [{ paused: true, scope: null }, 'scope'],
    ] as const) {
      const answer = await auth.operate('PATCH', `/tokens?scope=${scope}`, undefined, change)
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.text).to.include(expected)
    }
    for (const key of [null, serviceKey]) {
      expect((await auth.operate('PATCH', `/tokens?scope=${scope}`, key, { paused: true })).status).to.equal(401)
    }
    expect(await auth.isLive(token)).to.equal(true)
  })

  it('GET /tokens?scope= lists those with the name, also among those of a user', async () => {
    const { user } = await auth.newUser()
    const [one, other] = [await issue(`reports ${scope}`, { userId: user.id }), await issue(scope)]
    await issue('reports', { userId: user.id })
    expect(idsOf(await list(`scope=${scope}&limit=200`))).to.have.members([one.tokenId, other.tokenId])
    expect(idsOf(await list(`scope=${scope}&userId=${user.id}`))).to.deep.equal([one.tokenId])
    expect(idsOf(await list(`scope=${scope}&search=${other.tokenId}`))).to.deep.equal([other.tokenId])
  })

  it('GET /tokens?search= lists those whose id or username begins so, in any case of the username', async () => {
    const username = newUsername()
    const { user } = await auth.newUser({ username })
    const { tokenId } = await issue(null, { userId: user.id })
    expect(idsOf(await list(`search=${tokenId}`))).to.deep.equal([tokenId])
    expect(idsOf(await list(`search=${tokenId.slice(0, 9)}`))).to.include(tokenId)
    expect(idsOf(await list(`search=${tokenId.slice(1)}`))).to.deep.equal([])
    for (const search of [username, username.slice(0, -3).toUpperCase()]) {
      expect(idsOf(await list(`search=${encodeURIComponent(search)}`)))
        .to.include(tokenId)
        .and.have.lengthOf(2)
    }
    for (const query of ['search=', 'search=a&search=b', 'scope=', 'scope=a%20b']) {
      const answer = await auth.operate('GET', `/tokens?${query}`)
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.text).to.include('scope (one name) and search (how the id or the username begins)')
    }
  })

  it('a selection examines 20 pages and says with `next` that there are more', async () => {
    for (let i = 0; i < 25; i++) await issue('others')
    const { tokenId } = await issue(scope)
    const found = []
    let [next, pages]: [string | null, number] = ['', 0]
    while (next !== null) {
      const page: Page = await list(`scope=${scope}&limit=1${next && `&after=${next}`}`)
      found.push(...idsOf(page))
      next = page.next
      pages++
    }
    expect(found).to.deep.equal([tokenId])
    expect(pages).to.be.within(2, 10)
  })
})

describe('pauseByScope', () => {
  let tokens: Tokens
  beforeEach(async () => {
    const deps = { now: Date.now, ttlMs: 60_000, absoluteTtlMs: 60_000, limits: unlimited, emit: () => {} }
    tokens = createTokens({ store: await openTokenStore(), ...deps })
  })

  async function issue(count: number): Promise<string[]> {
    const terms: TokenTerms = {
      ...{ kind: 'fixed', purpose: null, owner: null, login: null },
      ...{ ttlMs: 60_000, absoluteTtlMs: 60_000, scope: 'orders:write' },
    }
    const issued = await Promise.all(Array.from({ length: count }, () => tokens.issue(terms)))
    return issued.map(one => one?.secret as string)
  }

  const countLive = async (secrets: string[]) =>
    (await tokens.validateAll(secrets, { purpose: null, touch: false })).filter(token => token !== null).length

  it('changes tokens on every page, and other requests need not wait for the last one', async () => {
    const secrets = await issue(1600)
    let turns = 0
    const count = () => {
      turns++
      counting = setImmediate(count)
    }
    let counting = setImmediate(count)
    expect(await pauseByScope(tokens, 'orders:write', true)).to.equal(1600)
    clearImmediate(counting)
    expect(turns).to.be.at.least(3)
    expect(await countLive(secrets)).to.equal(0)
  })

  it('rejects if the store fails midway, and completes the change when it is repeated', async () => {
    const secrets = await issue(600)
    let left = 300
    const failing: Pick<Tokens, 'list' | 'change'> = {
      ...tokens,
      async change(id, changes) {
        if (left-- <= 0) throw new AppError('unavailable', 'The token store is unavailable.')
        return tokens.change(id, changes)
      },
    }
    const error = await pauseByScope(failing, 'orders:write', true).catch((error: AppError) => error)
    expect(error).to.be.instanceOf(AppError).and.include({ code: 'unavailable' })
    expect(await countLive(secrets)).to.equal(300)
    expect(await pauseByScope(tokens, 'orders:write', true)).to.equal(600)
    expect(await countLive(secrets)).to.equal(0)
  })

  it('does not count a token that ended before its turn, and counts one that is on two pages once', async () => {
    const secrets = await issue(3)
    const { tokens: listed } = await tokens.list(null, 10)
    const pages: Pick<Tokens, 'list' | 'change'> = {
      ...tokens,
      async list(cursor) {
        if (cursor !== null) return { tokens: listed.slice(1), next: null }
        await tokens.revoke(secrets[0] as string)
        return { tokens: listed, next: '1' }
      },
    }
    expect(await pauseByScope(pages, 'orders:write', true)).to.equal(2)
  })
})
