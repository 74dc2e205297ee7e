// A snapshot of the memory store: what it keeps, and that an incomplete file restores nothing.
import { createHash, createHmac, randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { endianness } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import type { TokenKind } from '../../../packages/client/contract.ts'
import { openSnapshotStore } from '../../../services/auth/stores/memory/snapshot.ts'
import {
  noAuthority,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
} from '../../../services/auth/stores/tokenPort.ts'
import { drawSecret, drawTokenId, refOf } from '../../../services/auth/tokens/format.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, serviceKey } from '../../support/credentials.ts'
import { newFolder, removeFolders, withoutPrivileges } from '../../support/scratchFolders.ts'
import { answered, ownersWith } from '../../support/storeFixtures.ts'

const unlimited = { perUser: Infinity, total: Infinity }
const lineage = Buffer.alloc(32, 7).toString('base64url') // the same lineage for all renewals in this file
const minute = 60_000
const kinds: TokenKind[] = ['sliding', 'fixed', 'single-use']

describe('a snapshot of the memory store', () => {
  const clock = createClock()
  let folder: string
  let file: string
  beforeEach(() => {
    folder = newFolder()
    file = join(folder, 'tokens')
  })
  after(removeFolders)

  let key = adminKey
  afterEach(() => {
    key = adminKey
  })

  const open = (versions: Record<string, number> = { anna: 1, bert: 1 }) =>
    openSnapshotStore({ file, key, ownerOf: ownersWith(versions), now: clock.now })

  /** If `userId` is null, the token is a guest's. */
  function newToken(userId: string | null, members: Partial<TokenRecord> = {}): { ref: TokenRef; token: TokenRecord } {
    const createdAt = clock.now()
    const id = drawTokenId(userId, createdAt)
    const token: TokenRecord = {
      id,
      kind: 'sliding',
      purpose: null,
      userId,
      username: userId && `${userId}@example.com`,
      credentialVersion: userId === null ? 0 : 1,
      createdAt,
      loginId: userId === null ? null : id,
      lastUsedAt: createdAt,
      expiresAt: createdAt + minute,
      absoluteExpiresAt: createdAt + 10 * minute,
      ttlMs: minute,
      refreshCount: 0,
      scope: null,
      paused: false,
      rate: null,
      usesLeft: null,
      name: null,
      parent: null,
      authority: noAuthority,
      ...members,
    }
    return { ref: refOf(drawSecret(id)), token }
  }

  async function insert(store: TokenStore, ...given: Parameters<typeof newToken>) {
    const made = newToken(...given)
    expect(await store.insert(made.ref, made.token, unlimited, clock.now())).to.equal('inserted')
    return made
  }

  const look = async (store: TokenStore, ref: TokenRef, purpose: string | null = null) =>
    (await store.look([ref], clock.now(), purpose))[0] as TokenRecord | null

  const hmac = (secret: string, body: Buffer) =>
    createHmac('sha256', `latchkey snapshot ${secret}`).update(body).digest()

  /** The names of all files in the folder of the snapshot. */
  const left = () => readdirSync(folder)

  async function refusalOf(opening: Promise<unknown>): Promise<string> {
    const error = await opening.then(
      () => null,
      error => error as Error,
    )
    expect(error, 'it was taken for a snapshot').to.be.an('error')
    return (error as Error).message
  }

  async function writtenFile(): Promise<Buffer> {
    const { store } = await open()
    await insert(store, 'anna')
    await insert(store, 'bert', { kind: 'fixed' })
    await insert(store, null, { kind: 'single-use', purpose: 'reset' })
    await store.close()
    return readFileSync(file)
  }

  it('keeps every token as it was: kinds, purposes, users and guests, instants and counts', async () => {
    const { store, restored } = await open()
    expect(restored).to.equal(null)
    const made = []
    for (const userId of ['anna', 'bert', null]) {
      for (const kind of kinds) {
        for (const purpose of [null, 'reset']) made.push(await insert(store, userId, { kind, purpose }))
      }
    }
    clock.advance(1000)
    for (const { ref, token } of made.filter(({ token }) => token.kind !== 'single-use')) {
      await store.touch([ref, ref], clock.now(), token.purpose)
    }
    const before = await Promise.all(made.map(({ ref, token }) => look(store, ref, token.purpose)))
    await store.close()

    const again = await open()
    expect(again.restored).to.deep.equal({ tokens: made.length, dropped: 0 })
    const after = await Promise.all(made.map(({ ref, token }) => look(again.store, ref, token.purpose)))
    expect(after).to.not.include(null)
    expect(after).to.deep.equal(before)
    for (const { ref, token } of made) expect(await look(again.store, ref, token.purpose ? null : 'reset')).equal(null)
  })

  it('keeps extremes: the longest names, text in any script, the largest numbers', async () => {
    const { store } = await open()
    const username = `end ${'\u{1f511}"\\\n\u2028{'.repeat(30)}`
    const most = { ttlMs: 315_360_000_000, absoluteExpiresAt: clock.now() + 315_360_000_000, refreshCount: 2 ** 32 - 1 }
    const { ref, token } = await insert(store, 'anna', { username, purpose: 'p'.repeat(64), ...most })
    await store.close()
    const again = await open()
    expect(await look(again.store, ref, 'p'.repeat(64))).to.deep.equal(token)
  })

  it('keeps what was touched, renewed or consumed as it was then', async () => {
    const { store } = await open()
    const [slid, renewed, consumed] = [
      await insert(store, 'anna'),
      await insert(store, 'anna'),
      await insert(store, 'anna', { kind: 'single-use' }),
    ]
    clock.advance(minute - 1)
    const newRef = refOf(drawSecret(renewed.ref.id))
    await store.touch([slid.ref, consumed.ref], clock.now(), null)
    await store.renew(renewed.ref, newRef.hash, lineage, clock.now())
    clock.advance(minute - 1)
    await store.close()

    const again = await open()
    expect(await look(again.store, slid.ref)).to.include({ expiresAt: clock.now() + 1, refreshCount: 1 })
    expect(await look(again.store, newRef)).to.include({ expiresAt: clock.now() + 1, refreshCount: 1 })
    expect(await look(again.store, renewed.ref)).to.equal(null)
    expect(await look(again.store, consumed.ref)).to.equal(null)
  })

  it('keeps the log-in that led to a token', async () => {
    const { store } = await open()
    const made = []
    for (const members of [{}, { loginId: drawTokenId('anna', clock.now()) }, { loginId: null }])
      made.push(await insert(store, 'anna', members))
    await store.close()
    const again = await open()
    for (const { ref, token } of made) expect(await look(again.store, ref)).to.deep.equal(token)
  })

  it('still recognises an earlier secret of a session', async () => {
    const { store } = await open()
    const [renewed, never] = [await insert(store, 'anna'), await insert(store, 'anna')]
    const hash = refOf(drawSecret(renewed.ref.id)).hash
    await store.renew(renewed.ref, hash, lineage, clock.now())
    await store.close()
    const { store: again } = await open()
    const { id } = renewed.ref
    expect(await again.findRenewed(never.ref.id, lineage, clock.now())).to.equal(null)
    expect(await again.findRenewed(id, lineage, clock.now() - 1)).to.equal(null)
    expect(await again.explain(renewed.ref, clock.now(), null)).to.deep.equal({ reason: 'renewed', at: clock.now() })
    const found = await again.findRenewed(id, lineage, clock.now())
    expect(found).to.include({ id })
    expect(await look(again, { id, hash })).to.deep.equal(found)
  })

  it('restores no token that was ended, by itself or with all of its user', async () => {
    const { store } = await open()
    const ended = [await insert(store, 'anna'), await insert(store, 'anna', { kind: 'fixed' })]
    const [revoked, kept] = [await insert(store, 'bert'), await insert(store, 'bert')]
    await store.delete(revoked.ref, clock.now())
    await store.raiseFloor('anna', 2, null)
    const later = await insert(store, 'anna', { credentialVersion: 2 })
    await store.close()

    const again = await open({ anna: 2, bert: 1 })
    for (const { ref } of [...ended, revoked]) expect(await look(again.store, ref)).to.equal(null)
    for (const { ref } of [kept, later]) expect(await look(again.store, ref)).to.not.equal(null)
  })

  it('restores no ended token, even if the users were in memory too and start at version 1 again', async () => {
    const { store } = await open()
    const ended = await insert(store, 'anna')
    await store.raiseFloor('anna', 2, null)
    const later = await insert(store, 'anna', { credentialVersion: 2 })
    await store.close()

    const again = await open({ anna: 1 })
    expect(await look(again.store, ended.ref)).to.equal(null)
    expect(await look(again.store, later.ref)).to.not.equal(null)
    await again.store.raiseFloor('anna', 2, null) // anna's version is 1 again after the restart, so 2 is the next
    expect(await look(again.store, later.ref)).to.equal(null)
  })

  it('drops tokens that the user ended while they were in the file', async () => {
    const { store } = await open()
    const { ref } = await insert(store, 'anna')
    await store.close()
    const again = await open({ anna: 2 })
    expect(again.restored).to.deep.equal({ tokens: 0, dropped: 1 })
    expect(await look(again.store, ref)).to.equal(null)
  })

  it('drops dead tokens and those of unknown users, and counts them', async () => {
    const { store } = await open()
    const dead = await insert(store, 'anna', { expiresAt: clock.now() + 1000 })
    const unknown = await insert(store, 'carl')
    const [kept, guest] = [await insert(store, 'anna', { expiresAt: clock.now() + 1001 }), await insert(store, null)]
    await store.close()
    clock.advance(1000)
    const again = await open()
    expect(again.restored).to.deep.equal({ tokens: 2, dropped: 2 })
    for (const { ref } of [dead, unknown]) expect(await look(again.store, ref)).to.equal(null)
    for (const { ref } of [kept, guest]) expect(await look(again.store, ref)).to.not.equal(null)
  })

  it('does not write dead tokens', async () => {
    const { store } = await open()
    const dead = await insert(store, 'anna', { expiresAt: clock.now() + 1000 })
    clock.advance(1000)
    await insert(store, 'bert')
    await store.close()
    clock.advance(-1000)
    const again = await open()
    expect(again.restored).to.deep.equal({ tokens: 1, dropped: 0 })
    expect(await look(again.store, dead.ref)).to.equal(null)
  })

  it("keeps the order of a user's tokens, whatever slots they were in", async () => {
    const { store } = await open()
    const made = [await insert(store, 'anna'), await insert(store, 'anna'), await insert(store, 'anna')]
    await store.delete(made[0]?.ref as TokenRef, clock.now())
    clock.advance(1)
    made.push(await insert(store, 'anna'))
    const before = await store.findByUser('anna', clock.now())
    await store.close()
    const again = await open()
    expect(await again.store.findByUser('anna', clock.now())).to.deep.equal(before)
  })

  it('is readable by its owner only, and contains hashes, never secrets', async () => {
    const umask = process.umask(0)
    const secrets: string[] = []
    try {
      const { store } = await open()
      for (const userId of ['anna', null]) {
        const { token } = newToken(userId)
        const secret = drawSecret(token.id)
        secrets.push(secret)
        await store.insert(refOf(secret), token, unlimited, clock.now())
      }
      await store.close()
    } finally {
      process.umask(umask)
    }
    expect(statSync(file).mode & 0o777).to.equal(0o600)
    const text = readFileSync(file, 'latin1')
    expect(text).to.not.include('lk_')
    for (const secret of secrets) expect(text).to.not.include(secret.slice(17, 37))
    expect(left()).to.deep.equal(['tokens'])
  })

  it('is deleted once it has been read, so that it cannot restore what is revoked later', async () => {
    await writtenFile()
    await open()
    expect(left()).to.deep.equal([])
    expect((await open()).restored).to.equal(null)
  })

  it('replaces any earlier file, complete or not', async () => {
    const partial = `${file}.partial`
    const [first, second] = [await open(), await open()]
    await insert(first.store, 'anna')
    await first.store.close()
    writeFileSync(partial, randomBytes(1_000_000), { mode: 0o444 })
    const { ref } = await insert(second.store, 'anna')
    await second.store.close()
    expect(left()).to.deep.equal(['tokens'])
    expect(statSync(file).mode & 0o777).to.equal(0o600)
    const again = await open()
    expect(again.restored).to.deep.equal({ tokens: 1, dropped: 0 })
    expect(await look(again.store, ref)).to.not.equal(null)
  })

  it('is not written through a link at the place of the file', async () => {
    const victim = join(folder, 'victim')
    writeFileSync(victim, 'untouched')
    symlinkSync(victim, `${file}.partial`)
    await writtenFile()
    expect(readFileSync(victim, 'utf8')).to.equal('untouched')
  })

  it('is written once, however often the store is closed, and no token is accepted afterwards', async () => {
    const { store } = await open()
    await Promise.all([store.close(), store.close()])
    await open()
    await store.close()
    expect(left()).to.deep.equal([])
    const { ref, token } = newToken('anna')
    await store.insert(ref, token, unlimited, clock.now()).then(
      () => expect.fail('it was inserted'),
      () => {},
    )
  })

  it('without tokens is not written, so that it never replaces what another process kept', async () => {
    await (await open()).store.close()
    expect(existsSync(file)).to.equal(false)
    expect((await open()).restored).to.equal(null)
  })

  it('keeps all of 50 000 tokens', async () => {
    const users = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`user-${i}`, 1]))
    const { store } = await open()
    const made: { ref: TokenRef; token: TokenRecord }[] = []
    for (let i = 0; i < 50_000; i++) {
      const userId = i % 10 === 0 ? null : `user-${i % 5000}`
      const { ref, token } = newToken(userId, { kind: kinds[i % 3] as TokenKind, refreshCount: i })
      await store.insert(ref, token, unlimited, clock.now())
      made.push({ ref, token })
    }
    await store.close()
    const again = await open(users)
    expect(again.restored).to.deep.equal({ tokens: 50_000, dropped: 0 })
    const refs = made.map(({ ref }) => ref)
    const found = await again.store.look(refs, clock.now(), null)
    expect(
      answered(found).filter((token, i) => token?.refreshCount !== i || token.kind !== kinds[i % 3]),
    ).to.deep.equal([])
    expect(found[49_999]).to.deep.equal(made[49_999]?.token)
  })

  for (const [version, unknown] of [
    [5, ',"names":[],"parents":[]'],
    [4, ',"limits":[],"names":[],"parents":[],"buckets":[]'],
    [3, ',"scope":null,"paused":false'],
  ] as const) {
    it(`of version ${version}, without ${unknown}, is restored`, async () => {
      const { store } = await open()
      const { ref, token } = await insert(store, 'anna')
      await store.close()
      const blanked = (text: string) => ' '.repeat(text.length)
      const body = readFileSync(file).subarray(0, -32).toString('latin1')
      const earlier = body.replace('tokens 6', `tokens ${version}`).replaceAll(unknown, blanked)
      expect(earlier).to.not.include(unknown).and.not.equal(body)
      const bytes = Buffer.from(earlier, 'latin1')
      writeFileSync(file, Buffer.concat([bytes, hmac(adminKey, bytes)]))
      const again = await open()
      expect(await look(again.store, ref)).to.deep.equal(token)
      await again.store.close()
    })
  }

  describe('is refused, set aside and not loaded at all', () => {
    /**
     * Checks that the store does not open, that the error says why, that the file is kept under another name, and that
     * the next start finds no snapshot.
     */
    async function expectRefused(why: RegExp): Promise<void> {
      const message = await refusalOf(open())
      expect(message).to.match(/^TOKEN_SNAPSHOT_FILE: /)
      expect(message).to.include(file)
      expect(message).to.match(why)
      expect(message).to.not.include('\n')
      const aside = left()
      expect(aside).to.have.length(1)
      expect(aside[0]).to.match(/^tokens\.refused-\d+$/)
      expect(message).to.include(join(folder, aside[0] as string))
      expect((await open()).restored).to.equal(null)
      rmSync(join(folder, aside[0] as string), { recursive: true })
    }

    it('if it is cut at any byte', async () => {
      const whole = await writtenFile()
      for (let length = 0; length < whole.length; length++) {
        writeFileSync(file, whole.subarray(0, length))
        await expectRefused(/is not a complete snapshot/)
      }
    })

    it('if any byte differs', async () => {
      const whole = await writtenFile()
      for (let at = 0; at < whole.length; at++) {
        const changed = Buffer.from(whole)
        changed[at] = (changed[at] as number) ^ 1
        writeFileSync(file, changed)
        await expectRefused(/is not a complete snapshot/)
      }
    })

    const firstLine = `latchkey tokens 6 ${endianness()}`

    function blockOf(head: object | string, rows: ArrayLike<number>): Buffer {
      const json = Buffer.from(typeof head === 'string' ? head : JSON.stringify(head))
      const padded = Buffer.concat([json, Buffer.alloc(-json.length & 3, ' ')])
      const numbers = Uint32Array.from(rows)
      const lengths = Uint32Array.of(padded.length, numbers.byteLength)
      return Buffer.concat([Buffer.from(lengths.buffer), padded, Buffer.from(numbers.buffer)])
    }

    /** A file of these blocks with a correct checksum. */
    function signed(...blocks: Buffer[]): Buffer {
      const body = Buffer.concat([Buffer.from(`${firstLine}\n`), ...blocks, Buffer.alloc(8)])
      return Buffer.concat([body, hmac(adminKey, body)])
    }

    const terms = { kind: 'sliding', purpose: null, credentialVersion: 1, ttlMs: 1, lifetimeMs: 1 }
    const head = { terms: [terms], users: [['anna', 'anna', 1]], logins: [], renewals: [] }
    const row = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0, 0]
    const changed = (at: number, value: number) => row.with(at, value)
    const text = (bytes: Buffer, change: (text: string) => string) =>
      Buffer.from(change(bytes.toString('latin1')), 'latin1')

    it('unless its blocks are well-formed, as in the following tests', async () => {
      writeFileSync(file, signed(blockOf(head, row), blockOf(head, row.with(2, 4))), { mode: 0o600 })
      expect((await open()).restored).to.deep.equal({ tokens: 0, dropped: 2 })
    })

    const files: [what: string, make: (whole: Buffer) => string | Buffer, why: RegExp][] = [
      ['is empty', () => '', /too early/],
      ['is one line break', () => '\n', /first line/],
      [
        'is of another version',
        whole => text(whole, text => text.replace('tokens 6', 'tokens 7')),
        /first line is not "latchkey tokens 6 (LE|BE)"/,
      ],
      ['is of an early version', whole => text(whole, text => text.replace('tokens 6', 'tokens 1')), /first line/],
      [
        'is of a machine with another byte order',
        whole => text(whole, text => text.replace(/LE|BE/, order => (order === 'LE' ? 'BE' : 'LE'))),
        /first line/,
      ],
      ['is JSON', () => JSON.stringify({ tokens: [] }), /first line/],
      ['is noise', () => randomBytes(100_000), /first line/],
      ['is zeros, as after a crash', whole => Buffer.alloc(whole.length), /first line/],
      ['ends in zeros', whole => Buffer.concat([whole.subarray(0, -40), Buffer.alloc(40)]), /checksum/],
      ['is followed by more data', whole => Buffer.concat([whole, Buffer.from('x')]), /follows/],
      ['is doubled', whole => Buffer.concat([whole, whole]), /follows/],
      ['has the checksum of another', whole => Buffer.concat([whole.subarray(0, -32), randomBytes(32)]), /checksum/],
      ['has no checksum', whole => whole.subarray(0, -32), /too early/],
      [
        'lacks a block',
        () => Buffer.concat([signed().subarray(0, -32), signed(blockOf(head, row)).subarray(-32)]),
        /checksum/,
      ],
      ['begins with a byte order mark', whole => Buffer.concat([Buffer.from('\ufeff'), whole]), /first line/],
      ['announces more than it has', () => signed(Buffer.from(Uint32Array.of(2 ** 31, 0).buffer)), /too early/],
      ['signs a head that is not JSON', () => signed(blockOf('{nonsense', [])), /head of block 1 is malformed/],
      ['signs a head of something else', () => signed(blockOf({ tokens: [] }, [])), /head of block 1 is malformed/],
      [
        'signs terms of an unknown kind',
        () => signed(blockOf(head, row), blockOf({ ...head, terms: [{ ...terms, kind: 'eternal' }] }, row)),
        /head of block 2 is malformed/,
      ],
      [
        'signs a user whose id is a number',
        () => signed(blockOf({ ...head, users: [[7, 'anna', 1]] }, row)),
        /head of block 1 is malformed/,
      ],
      ['signs too few rows', () => signed(blockOf(head, [])), /block 1 .* rows/],
      ['signs too many rows', () => signed(blockOf(head, [...row, ...row])), /block 1 .* rows/],
      ['signs a part of a row', () => signed(blockOf(head, [...row, 1])), /block 1 .* rows/],
      ['signs a token without terms', () => signed(blockOf({ ...head, terms: [] }, row)), /row 0 of block 1/],
      ['signs a token with terms elsewhere', () => signed(blockOf(head, changed(11, 1 << 16))), /row 0 of block 1/],
      ['signs a token with an invalid id', () => signed(blockOf(head, changed(0, 62 ** 4))), /row 0 of block 1/],
      ['signs a token with an invalid hash', () => signed(blockOf(head, changed(6, 2 ** 30))), /row 0 of block 1/],
    ]
    for (const [what, make, why] of files) {
      it(`if it ${what}`, async () => {
        const whole = await writtenFile()
        writeFileSync(file, make(whole))
        await expectRefused(why)
      })
    }

    it('if its checksum was made without the key, or with another', async () => {
      const body = (await writtenFile()).subarray(0, -32)
      for (const mark of [createHash('sha256').update(body).digest(), hmac(serviceKey, body)]) {
        writeFileSync(file, Buffer.concat([body, mark]))
        await expectRefused(/written with another ADMIN_KEY/)
      }
      await writtenFile()
      key = serviceKey
      await expectRefused(/written with another ADMIN_KEY/)
    })

    for (const mode of [0o622, 0o620, 0o602, 0o666]) {
      it(`if others may write to it: ${mode.toString(8)}`, async () => {
        await writtenFile()
        chmodSync(file, mode)
        await expectRefused(new RegExp(`others may write to it \\(mode ${mode.toString(8)}\\)`))
      })
    }

    it('if it belongs to another user', async function () {
      if (process.getuid?.() !== 0) this.skip() // only root can change the owner of a file
      await writtenFile()
      chownSync(file, 65534, 65534)
      await expectRefused(/it belongs to another user \(65534\)/)
    })

    it('if it is a folder', async () => {
      mkdirSync(file)
      await expectRefused(/EISDIR/)
    })

    it('if it may not be read', async () => {
      await writtenFile()
      chmodSync(folder, 0o777)
      chmodSync(file, 0)
      const message = await withoutPrivileges(() => refusalOf(open()))
      expect(message).to.match(/^TOKEN_SNAPSHOT_FILE: .*EACCES/)
    })
  })

  describe('is refused if it cannot be removed or set aside:', () => {
    const cases: [what: string, prepare: () => void][] = [
      ['in a folder that may not be changed', () => chmodSync(folder, 0o555)],
      ['in a folder that may not be entered', () => chmodSync(folder, 0)],
      [
        'unreadable, in a folder that may not be changed',
        () => {
          chmodSync(file, 0)
          chmodSync(folder, 0o555)
        },
      ],
    ]
    for (const [what, prepare] of cases) {
      it(what, async () => {
        await writtenFile()
        chmodSync(file, 0o644)
        prepare()
        const message = await withoutPrivileges(() => refusalOf(open()))
        chmodSync(folder, 0o755)
        expect(message).to.match(/^TOKEN_SNAPSHOT_FILE: .*EACCES/)
        expect(message).to.include(file)
        expect(left()).to.deep.equal(['tokens'])
      })
    }

    it('as a link to itself', async () => {
      symlinkSync(file, file)
      expect(await refusalOf(open())).to.match(/^TOKEN_SNAPSHOT_FILE: .* cannot be read \(ELOOP\)\.$/)
    })
  })

  describe('that cannot be written', () => {
    const cases: [what: string, prepare: () => void][] = [
      ['because its folder is gone', () => rmSync(folder, { recursive: true })],
      ['because its folder may not be changed', () => chmodSync(folder, 0o555)],
      ['because a folder has its name', () => mkdirSync(join(file, 'full'), { recursive: true })],
      ['because a folder has the name of its partial file', () => mkdirSync(`${file}.partial`)],
    ]
    for (const [what, prepare] of cases) {
      it(`${what}, makes closing fail with a sentence that names the setting`, async () => {
        const { store } = await open()
        await insert(store, 'anna')
        chmodSync(folder, 0o777)
        prepare()
        const message = await withoutPrivileges(() => refusalOf(store.close()))
        expect(message).to.match(/^TOKEN_SNAPSHOT_FILE: /)
        expect(message).to.include(file)
      })
    }
  })
})
