// Rows of PostgreSQL that another transaction has locked, such as that of an operator, in a batch with others.
import { expect } from 'chai'
import pg from 'pg'
import { openTokenStore } from '../../../services/auth/stores/index.ts'
import { type Found, isAdmitted, type TokenRef, type TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import { insertedToken, newToken, start } from '../../support/sqlStores.ts'
import { freshPlace, type Place, schemesHere } from '../../support/stores.ts'

describe('a locked row of PostgreSQL', () => {
  let place: Place
  let store: TokenStore
  let operator: pg.Client
  beforeEach(async function () {
    if ((await schemesHere(['postgres'])).length === 0) return this.skip()
    place = await freshPlace('postgres')
    store = await openTokenStore(place.url)
    operator = new pg.Client({ connectionString: place.url })
    await operator.connect()
  })
  afterEach(async () => {
    await operator?.end()
    await store?.close()
    await place?.remove()
  })

  const lock = ({ id }: TokenRef) => operator.query(`begin; select from latchkey_tokens where id = '${id}' for update`)
  const outlined = (found: Found[]) => found.map(token => (isAdmitted(token) ? token.id : token))

  it('makes its own token unavailable, and no other of the batch', async () => {
    const [locked, free] = [await insertedToken({ tokens: store }), await insertedToken({ tokens: store })]
    const once = await insertedToken({ tokens: store }, { kind: 'single-use' })
    const unknown = newToken()
    await lock(locked.ref)
    const refs = [once, locked, free, unknown, once, locked].map(({ ref }) => ref)
    const found = await store.touch(refs, start + 1, null)
    expect(outlined(found)).to.deep.equal([once.ref.id, 'unavailable', free.ref.id, null, null, 'unavailable'])
    await operator.query('rollback')
    const after = await store.look([locked.ref, free.ref, once.ref], start + 1, null)
    expect(after).to.deep.equal([locked.token, found[2], null])
  })

  it('is an error for a batch of which nothing else can be asked', async () => {
    const { ref } = await insertedToken({ tokens: store })
    await lock(ref)
    const touches = [store.touch([ref, ref], start, null), store.touchSession(ref, start)]
    for (const { status } of await Promise.allSettled(touches)) expect(status).to.equal('rejected')
  })

  it('does not admit a token that is not acceptable, locked or not', async () => {
    const [locked, free] = [await insertedToken({ tokens: store }), await insertedToken({ tokens: store })]
    await lock(locked.ref)
    const stolen = { ...locked.ref, hash: newToken().ref.hash }
    expect(outlined(await store.touch([stolen, free.ref], start, null))).to.deep.equal([null, free.ref.id])
  })

  it('refuses no expired token that a late call may be extending, and looks at the others', async () => {
    const [locked, free] = [await insertedToken({ tokens: store }), await insertedToken({ tokens: store })]
    await lock(locked.ref)
    const late = start + 100 * 60_000
    for (const call of [store.touch, store.look]) {
      expect(await call([locked.ref, free.ref], late, null)).to.deep.equal(['unavailable', null])
    }
    const owner = locked.token.userId as string
    const alone = [
      () => store.look([locked.ref], late, null),
      () => store.findByUser(owner, late),
      () => store.deleteById(locked.ref.id, late, owner),
    ]
    for (const call of alone) {
      expect(await call().catch((error: Error) => error.message)).to.equal('another transaction has locked the tokens')
    }
    await operator.query('rollback')
    expect(await store.touch([locked.ref], start, null)).to.have.nested.property('[0].id', locked.ref.id)
    expect(await store.touch([free.ref], start, null)).to.deep.equal([null])
  })

  it('of a user makes the limited tokens of this user unavailable, and no other of the batch', async () => {
    const rate = { perMinute: 60, burst: 10 }
    const [locked, limited] = [
      await insertedToken({ tokens: store }, { rate }),
      await insertedToken({ tokens: store }, { rate }),
    ]
    const free = await insertedToken({ tokens: store })
    const lockKey = `hashtextextended('${locked.token.userId}', 0)`
    await operator.query(`begin; select pg_advisory_xact_lock(${lockKey})`)
    const refs = [locked, limited, free, limited].map(({ ref }) => ref)
    for (let i = 1; i <= 2; i++) {
      const found = await store.touch(refs, start + i, null)
      expect(outlined(found)).to.deep.equal(['unavailable', limited.ref.id, free.ref.id, limited.ref.id])
      expect(found[3]).to.include({ refreshCount: 2 * i })
    }
    await operator.query('rollback')
    expect(outlined(await store.touch([locked.ref], start + 3, null))).to.deep.equal([locked.ref.id])
  })

  it('is waited for if it is locked for a moment only', async () => {
    const { ref } = await insertedToken({ tokens: store })
    await lock(ref)
    const touched = store.touch([ref], start + 1, null)
    await operator.query('select pg_sleep(0.1); rollback')
    expect((await touched).map(Boolean)).to.deep.equal([true])
  })
})
