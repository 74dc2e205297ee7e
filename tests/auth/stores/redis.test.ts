// What is special about tokens in Redis: batches, keys, and several processes on one server or cluster. What every store must do
// is in contracts/.

import { hash, randomUUID } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/index.ts'
import { type TokenStore, tagOf } from '../../../services/auth/stores/tokenPort.ts'
import { drawTokenId } from '../../../services/auth/tokens/format.ts'
import { sharedTokenStoreContract } from '../../contracts/sharedTokenStore.ts'
import { startLine } from '../../support/line.ts'
import { hasRedis, type RedisServer, reportMissingRedis, startRedis } from '../../support/redis.ts'
import {
  commandsOf,
  crowdOf,
  day,
  everyCall,
  inserted,
  insertedMany,
  keysOf,
  look,
  newToken,
  raiseFloor,
  start,
  sweepRound,
  touch,
} from '../../support/redisTokens.ts'
import { slackMs } from '../../support/slack.ts'
import { expectRecovery, untilAllSucceed } from '../../support/storeFaults.ts'
import { answered, lineage, type MadeToken, minute, newHash, unlimited } from '../../support/storeFixtures.ts'
import { type Peer, startPeer } from '../../support/storePeer.ts'
import { freshPlace, type Place } from '../../support/stores.ts'
import { until } from '../../support/until.ts'

describe('tokens in Redis:', () => {
  let server: RedisServer
  const opened: TokenStore[] = []
  before(async function () {
    if (!hasRedis) {
      reportMissingRedis('tokens in Redis')
      return this.skip()
    }
    server = await startRedis()
  })
  after(() => server?.remove())
  afterEach(async () => {
    await Promise.all(opened.splice(0).map(store => store.close()))
  })

  async function open(url = server.url, warn?: (warning: string) => void): Promise<TokenStore> {
    const store = await openTokenStore(url, warn)
    opened.push(store)
    return store
  }
  for (const scheme of ['redis', 'redis-cluster']) {
    describe(`two processes on one place of ${scheme}:`, () => {
      let place: Place
      let one: TokenStore
      let other: Peer
      before(async function () {
        if (!hasRedis) return this.skip()
        place = await freshPlace(scheme)
        one = await openTokenStore(place.url)
        other = await startPeer()
        await other.open(place.url, false)
      })
      after(async () => {
        await one?.close()
        await other?.end()
        await place?.remove()
      })

      sharedTokenStoreContract(() => [one, other.tokens])
    })
  }

  describe('one batch', () => {
    it('of 200 tokens of 200 users is one command and one burst', async () => {
      const line = await startLine(server.port)
      try {
        const store = await open(`redis://127.0.0.1:${line.port}`)
        const made = await insertedMany(store, 200)
        await store.touch([newToken().ref], start, null) // the script is loaded
        const before = await commandsOf(server)
        line.bursts = 0
        const answers = await store.touch(
          made.map(({ ref }) => ref),
          start,
          null,
        )
        expect(line.bursts).to.equal(1)
        expect(answered(answers).map(token => token?.id)).to.deep.equal(made.map(({ token }) => token.id))
        const after = await commandsOf(server)
        expect([after['evalsha'], after['eval']]).to.deep.equal([(before['evalsha'] ?? 0) + 1, before['eval']])
      } finally {
        await line.close()
      }
    })

    it('sends a script once, and again if Redis has forgotten it', async () => {
      const store = await open()
      await touch(store, newToken().ref)
      const evals = async () => (await commandsOf(server))['eval'] ?? 0
      const before = await evals()
      for (let i = 0; i < 20; i++) await touch(store, newToken().ref)
      expect(await evals()).to.equal(before)
      await server.command('script', 'flush')
      for (let i = 0; i < 20; i++) await touch(store, newToken().ref)
      expect(await evals()).to.equal(before + 1)
      await server.command('script', 'flush')
      await untilAllSucceed(crowdOf(everyCall(store)))
      await server.kill()
      await server.start()
      await expectRecovery(everyCall(store), 2000 + slackMs)
    })
  })

  describe('its keys', () => {
    let store: TokenStore
    const prefix = 'p:'
    const url = () => `${server.url}?prefix=${prefix}`
    beforeEach(async () => {
      await server.command('flushall')
      store = await open(url())
    })

    /** Makes every kind of token, and every kind of change that leaves keys behind. */
    async function doEverything(): Promise<MadeToken[]> {
      const userId = randomUUID()
      const made = await insertedMany(store, 3, { userId })
      made.push(...(await insertedMany(store, 3, { userId: null })), ...(await insertedMany(store, 2)))
      const [first, second, third] = made as [MadeToken, MadeToken, MadeToken]
      const others = {
        consumed: await inserted(store, { kind: 'single-use' }),
        fixed: await inserted(store, { kind: 'fixed', purpose: 'reset' }),
        expired: await inserted(store, { expiresAt: start + 1 }),
        evicted: await inserted(store),
      }
      await touch(store, first.ref)
      await touch(store, others.consumed.ref)
      await store.renew(second.ref, newHash(), lineage, start)
      await store.delete(third.ref, start)
      await raiseFloor(store, randomUUID(), 7)
      await store.raiseFloor(userId, 2, first.ref.id)
      const { userId: owner } = others.evicted.token
      const { ref, token } = newToken({ userId: owner })
      await store.insert(ref, token, { perUser: 1, total: Infinity }, start)
      await sweepRound(store, start + 1)
      return [...made, ...Object.values(others)]
    }

    it('all begin with the prefix, have a tag in braces, and expire', async () => {
      await doEverything()
      const keys = await keysOf(server)
      expect(keys.length).to.be.above(10)
      for (const key of keys) {
        expect(key).to.match(/^p:[^{}]*\{[0-9A-Za-z]{4}\}/)
        expect(await server.command('pttl', key), key).to.be.above(0)
      }
    })

    it('contain no secret, and at most 120 bits of a hash', async () => {
      // Try again if a call misses the deadline of the store, as it may on a busy machine.
      const made = await until(() => doEverything().catch(() => null))
      await server.command('save')
      const files = [join(server.folder, 'dump.rdb')]
      for (const name of readdirSync(join(server.folder, 'appendonlydir'))) {
        files.push(join(server.folder, 'appendonlydir', name))
      }
      const bytes = Buffer.concat(files.map(file => readFileSync(file)))
      expect(bytes.includes(made[0]?.token.id.slice(4) as string)).to.equal(true)
      let longer = 0
      for (const { secret, ref } of made) {
        const digest = Buffer.from(ref.hash, 'base64url')
        expect(digest.equals(hash('sha256', secret, 'buffer'))).to.equal(true)
        expect(bytes.includes(digest.subarray(0, 15)), 'the 120 bits').to.equal(true)
        if (bytes.includes(digest.subarray(0, 16))) longer++
        const parts = [secret.slice(0, 30), secret.slice(17, 33), secret.slice(-16)]
        const digests = [digest.subarray(16), digest.toString('hex').slice(0, 32), ref.hash]
        for (const part of [...parts, ...digests]) expect(bytes.includes(part), String(part)).to.equal(false)
      }
      const wrong = made.map(({ ref }) => ({ id: ref.id, hash: Buffer.alloc(32).toString('base64url') }))
      const found = await until(() => store.touch(wrong, start, null).catch(() => null))
      expect(found).to.deep.equal(wrong.map(() => null))
      // The byte after the 15 stored bytes equals the digest's 16th byte by chance once in 256, so for a few tokens 16
      // bytes may seem to be stored.
      expect(longer, `of ${made.length} have 16 bytes`).to.be.below(made.length / 2)
    })

    for (const others of ['q:', 'p:end', 'p', 'p:p:', '']) {
      it(`are not seen by a store with the prefix "${others}"`, async () => {
        const other = await open(`${server.url}?prefix=${others}`)
        const made = await inserted(store, { expiresAt: start + 1 })
        await store.deleteById((await inserted(store)).ref.id, start, null)
        expect(await touch(other, made.ref)).to.equal(null)
        expect(await other.deleteById(made.ref.id, start, null)).to.equal(null)
        await raiseFloor(other, made.token.userId as string, 9)
        expect(await sweepRound(other, start + 1)).to.equal(0)
        expect(await touch(store, made.ref)).to.include({ id: made.token.id })
        const theirs = await inserted(other, { expiresAt: start + 1 })
        await other.deleteById((await inserted(other)).ref.id, start, null)
        expect(await sweepRound(store, start + 1)).to.equal(0)
        expect(await sweepRound(other, start + 1)).to.equal(1)
        expect((await other.explain(theirs.ref, start + 1, null)).reason).to.equal('expired')
      })
    }

    it('outlive their tokens, whatever happens to those, and keep a floor for a day', async () => {
      const userId = randomUUID()
      const { ref } = await inserted(store, { userId })
      const [key] = (await keysOf(server)) as [string]
      const ttl = async () => Number(await server.command('pttl', key))
      expect(await ttl()).to.be.within(10.5 * minute, 11 * minute)
      await touch(store, ref, start + 50 * minute)
      expect(await ttl()).to.be.within(10.5 * minute, 11 * minute)
      await inserted(store, { userId, expiresAt: start + 20 * minute })
      expect(await ttl()).to.be.within(20.5 * minute, 21 * minute)
      await store.renew(ref, newHash(), lineage, start + 50 * minute)
      await inserted(store, { userId, expiresAt: start + minute })
      await store.delete(ref, start)
      expect(await ttl()).to.be.within(20.5 * minute, 21 * minute)
      await raiseFloor(store, userId, 2)
      expect(await ttl()).to.be.within(day - minute, day)
      await inserted(store, { userId, credentialVersion: 2 })
      await sweepRound(store, start + 30 * minute)
      expect(await ttl()).to.be.within(day - minute, day)
      await inserted(store, { userId, credentialVersion: 2, expiresAt: start + 3 * day })
      expect(await ttl()).to.be.within(3 * day, 3 * day + minute)
    })

    it('may be expired by Redis: their tokens are dead', async () => {
      const userId = randomUUID()
      const { ref } = await inserted(store, { userId })
      await raiseFloor(store, userId, 2)
      const kept = await inserted(store, { userId, credentialVersion: 2 })
      for (const key of await keysOf(server)) await server.command('pexpire', key, 0)
      expect(await store.touch([ref, kept.ref], start, null)).to.deep.equal([null, null])
      expect(await store.findByUser(userId, start)).to.deep.equal([])
      await inserted(store, { userId, credentialVersion: 2 })
      expect(await store.findByUser(userId, start)).to.have.lengthOf(1)
    })

    it('are small: a listpack for one token and for fifty tokens of a user, even with a long name', async () => {
      for (const n of [1, 50]) {
        await server.command('flushall')
        await insertedMany(store, n, { userId: randomUUID(), username: 'n'.repeat(64), purpose: 'a purpose' })
        const [key] = (await keysOf(server)) as [string]
        expect(await server.command('object', 'encoding', key)).to.equal('listpack')
      }
      const figures = []
      const sum = `local sum = 0
        for _, key in ipairs(redis.call('KEYS', '*')) do sum = sum + redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0) end
        return sum`
      for (const n of [1, 10, 100]) {
        await server.command('flushall')
        for (let tokens = 0; tokens < 1000; tokens += 100) {
          const users = Array.from({ length: 100 / n }, () => insertedMany(store, n, { userId: randomUUID() }))
          await Promise.all(users)
        }
        figures.push(`${n} of a user: ${Math.round(Number(await server.command('eval', sum, 0)) / 1000)}`)
      }
      console.log(`        bytes per token, ${figures.join(', ')}`)
    })

    const odd = [
      '1:2:3',
      '0:',
      ':',
      '\0',
      'a\0b',
      'a\nb\r\n',
      '🔑 é ß 漢',
      '{x}',
      '%d+',
      '-- \' " \\',
      '__proto__',
      'u1',
      'f1',
      ' ',
    ]

    /** Draws user ids, about five thousand, until two of them have the same tag. */
    function drawNeighbours(): [string, string] {
      const found = new Map<string, string>()
      for (;;) {
        const userId = randomUUID()
        const tag = tagOf(userId)
        const other = found.get(tag)
        if (other !== undefined) return [other, userId]
        found.set(tag, userId)
      }
    }

    it('can be shared by users with the same tag without affecting each other', async () => {
      const [first, second] = drawNeighbours()
      const tag = tagOf(first)
      const limits = { perUser: 2, total: Infinity }
      const insert = async (userId: string | null, createdAt: number, username = `${userId}`) => {
        const members = { id: tag + drawTokenId(null, start).slice(4), username: userId && username }
        const made = newToken({ ...members, userId, createdAt, credentialVersion: userId === null ? 0 : 1 })
        expect(await store.insert(made.ref, made.token, limits, start)).to.equal('inserted')
        return made
      }
      const guest = await insert(null, start)
      const own: Record<string, MadeToken[]> = { [first]: [], [second]: [] }
      for (const [i, username] of odd.entries()) {
        for (const userId of [first, second]) own[userId]?.push(await insert(userId, start + i, username))
      }
      expect(await keysOf(server)).to.include(`p:{${tag}}`)
      for (const userId of [first, second]) {
        const tokens = own[userId]?.slice(-2).map(({ token }) => ({ ...token, username: ' ' }))
        expect(await store.findByUser(userId, start)).to.deep.equal(tokens)
      }
      await store.raiseFloor(first, 2, null)
      expect(await store.findByUser(first, start)).to.deep.equal([])
      expect(await store.findByUser(second, start)).to.have.lengthOf(2)
      for (const made of own[second]?.slice(-2) ?? [])
        expect(await touch(store, made.ref)).to.include({ userId: second })
      expect(await touch(store, guest.ref)).to.include({ userId: null })
      expect(await sweepRound(store, start)).to.equal(2)
      const { ref, token } = newToken({ id: `${tag}Late000000`, userId: first })
      expect(await store.insert(ref, token, limits, start)).to.equal('ended')
      await insert(second, start + 99)
    })

    it('accept users, names and purposes of any characters, up to 256', async () => {
      for (const text of [...odd, ...odd.map(part => part.repeat(256).slice(0, 256).toWellFormed())]) {
        const made = newToken({ userId: text, username: text, purpose: text })
        const { ref, token } = made
        expect(await store.insert(ref, token, unlimited, start)).to.equal('inserted')
        expect(await store.look([ref], start, text)).to.deep.equal([token])
        expect(await store.look([ref], start, `${text}.`)).to.deep.equal([null])
        expect(await store.touch([ref], start, text)).to.deep.equal([{ ...token, refreshCount: 1 }])
        expect(await store.findByUser(text, start)).to.deep.equal([{ ...token, refreshCount: 1 }])
        expect(await store.findByUser(`${text}.`, start)).to.deep.equal([])
        await store.raiseFloor(`${text}.`, 2, null)
        await store.raiseFloor(text, 2, ref.id)
        const kept = { ...token, credentialVersion: 2, refreshCount: 1 }
        expect(await store.delete(ref, start)).to.deep.equal(kept)
        expect(await store.insert(ref, token, unlimited, start)).to.equal('ended')
      }
    })

    it('keep the log-in when the count of uses has reached its maximum', async () => {
      const most = 2 ** 31 - 1
      for (const members of [{}, { loginId: `${tagOf('ann')}0000000000` }, { loginId: null }]) {
        const { ref, token } = await inserted(store, { userId: 'ann', refreshCount: most - 1, ...members })
        for (let i = 0; i < 3; i++) {
          expect(await touch(store, ref)).to.deep.equal({ ...token, refreshCount: most })
        }
      }
    })

    it('distinguish more users with the same tag than a byte can count', async () => {
      const tag = 'Tag0'
      const made = []
      for (let i = 0; i < 300; i++) {
        const { ref, token } = newToken({ id: drawTokenId(null, start).replace(/^..../, tag), userId: `user ${i}` })
        const outcome = await store.insert(ref, token, unlimited, start)
        if (outcome === 'inserted') made.push({ ref, token })
        else expect(outcome).to.equal('full')
      }
      expect(made.length).to.be.above(250)
      for (const { ref, token } of made) expect(await look(store, ref)).to.deep.equal(token)
    })
  })

  describe('its count of tokens', () => {
    it('includes the tokens of another process at the end of a round', async () => {
      await server.command('flushall')
      const [one, other] = [await open(), await open()]
      await insertedMany(other, 2500)
      const { ref, token } = newToken()
      const limits = { perUser: Infinity, total: 2500 }
      expect(await one.insert(ref, token, limits, start)).to.equal('inserted')
      await sweepRound(one, start)
      const late = newToken()
      expect(await one.insert(late.ref, late.token, limits, start)).to.equal('full')
      expect(await one.insert(late.ref, late.token, { ...limits, total: 2502 }, start)).to.equal('inserted')
    })

    it('includes the tokens that this process adds during a round', async () => {
      await server.command('flushall')
      const one = await open()
      await insertedMany(one, 900)
      await one.deleteExpired(start, 1) // this sweep has counted nearly all of the 900 tokens
      await insertedMany(one, 1500)
      await sweepRound(one, start)
      const { ref, token } = newToken()
      expect(await one.insert(ref, token, { perUser: Infinity, total: 2400 }, start)).to.equal('full')
      expect(await one.insert(ref, token, { perUser: Infinity, total: 2401 }, start)).to.equal('inserted')
    })
  })
})
