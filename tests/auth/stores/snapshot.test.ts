// TOKEN_SNAPSHOT_FILE: what a planned restart keeps, and that a file which is not a whole snapshot brings back nothing.
import { execFileSync } from 'node:child_process'
import { createHash, createHmac, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import type { TokenKind } from '../../../packages/client/contract.ts'
import { readAuthConfig } from '../../../services/auth/config.ts'
import { openSnapshotStore } from '../../../services/auth/stores/memory/snapshot.ts'
import type { TokenRecord, TokenRef, TokenStore } from '../../../services/auth/stores/ports.ts'
import { drawSecret, drawTokenId, refOf } from '../../../services/auth/tokens/format.ts'
import { ConfigError } from '../../../shared/config/readSettings.ts'
import { adminKey, closeServers, createClock, demo, serviceKey, startAuth } from '../../support/servers.ts'
import { cleanUp, runStartServer } from '../../support/startServer.ts'
import { until } from '../../support/until.ts'

const unlimited = { perUser: Infinity, total: Infinity }
const lineage = Buffer.alloc(32, 7).toString('base64url') // of all renewals here
const minute = 60_000
const kinds: TokenKind[] = ['sliding', 'fixed', 'single-use']

const folders: string[] = []

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-snapshot-'))
  folders.push(folder)
  return folder
}

function removeFolders(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
}

/** Runs as somebody for whom the rights of files count: root may do everything. */
async function withoutPrivileges<T>(run: () => Promise<T>): Promise<T> {
  if (process.geteuid?.() !== 0) return run()
  process.seteuid?.(65_534)
  try {
    return await run()
  } finally {
    process.seteuid?.(0)
  }
}

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
    openSnapshotStore({ file, key, versionOf: async userId => versions[userId] ?? null, now: clock.now })

  /** Null: a guest. */
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

  /** What is in the folder that somebody could take for a snapshot. */
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

  it('keeps what is odd: the longest names, text in any script, the largest numbers', async () => {
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

  it('keeps what tells an earlier secret of a session', async () => {
    const { store } = await open()
    const [renewed, never] = [await insert(store, 'anna'), await insert(store, 'anna')]
    const hash = refOf(drawSecret(renewed.ref.id)).hash
    await store.renew(renewed.ref, hash, lineage, clock.now())
    await store.close()
    const { store: again } = await open()
    const { id } = renewed.ref
    expect(await again.deleteRenewed(never.ref.id, lineage, clock.now(), clock.now())).to.equal(null)
    expect(await again.deleteRenewed(id, lineage, clock.now() - 1, clock.now())).to.equal(null)
    expect(await again.explain(renewed.ref, clock.now(), null)).to.deep.equal({ reason: 'renewed', at: clock.now() })
    expect(await again.deleteRenewed(id, lineage, clock.now(), clock.now())).to.include({ id })
    expect(await look(again, { id, hash })).to.equal(null)
  })

  it('brings back nothing that was ended, one by one or all of a user at once', async () => {
    const { store } = await open()
    const ended = [await insert(store, 'anna'), await insert(store, 'anna', { kind: 'fixed' })]
    const [revoked, kept] = [await insert(store, 'bert'), await insert(store, 'bert')]
    await store.delete(revoked.ref, clock.now())
    await store.endUser('anna', 2, null)
    const later = await insert(store, 'anna', { credentialVersion: 2 })
    await store.close()

    const again = await open({ anna: 2, bert: 1 })
    for (const { ref } of [...ended, revoked]) expect(await look(again.store, ref)).to.equal(null)
    for (const { ref } of [kept, later]) expect(await look(again.store, ref)).to.not.equal(null)
  })

  it('brings back nothing that was ended where the users, being in memory too, start at version 1 again', async () => {
    const { store } = await open()
    const ended = await insert(store, 'anna')
    await store.endUser('anna', 2, null)
    const later = await insert(store, 'anna', { credentialVersion: 2 })
    await store.close()

    const again = await open({ anna: 1 })
    expect(await look(again.store, ended.ref)).to.equal(null)
    expect(await look(again.store, later.ref)).to.not.equal(null)
    await again.store.endUser('anna', 2, null) // what follows on version 1
    expect(await look(again.store, later.ref)).to.equal(null)
  })

  it('drops what the user has ended while the tokens were in the file', async () => {
    const { store } = await open()
    const { ref } = await insert(store, 'anna')
    await store.close()
    const again = await open({ anna: 2 })
    expect(again.restored).to.deep.equal({ tokens: 0, dropped: 1 })
    expect(await look(again.store, ref)).to.equal(null)
  })

  it('drops the dead and those of unknown users, and counts them', async () => {
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

  it('does not even write the dead', async () => {
    const { store } = await open()
    const dead = await insert(store, 'anna', { expiresAt: clock.now() + 1000 })
    clock.advance(1000)
    await store.close()
    expect(readFileSync(file, 'utf8')).to.not.include(dead.ref.id)
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

  it('is readable for its owner only, and holds hashes, never secrets', async () => {
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
    const text = readFileSync(file, 'utf8')
    expect(text).to.not.include('lk_')
    for (const secret of secrets) expect(text).to.not.include(secret.slice(17, 37))
    expect(left()).to.deep.equal(['tokens'])
  })

  it('is gone when it has been read: it can never bring back what is revoked later', async () => {
    await writtenFile()
    await open()
    expect(left()).to.deep.equal([])
    expect((await open()).restored).to.equal(null)
  })

  it('is written whole over whatever lies about: an old one, half a one', async () => {
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

  it('does not write through a link that was put where the file is made', async () => {
    const victim = join(folder, 'victim')
    writeFileSync(victim, 'untouched')
    symlinkSync(victim, `${file}.partial`)
    await writtenFile()
    expect(readFileSync(victim, 'utf8')).to.equal('untouched')
  })

  it('is written once, however often the store is closed, and nothing is taken afterwards', async () => {
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

  it('of no tokens is not written: it would put nothing in the place of what another process kept', async () => {
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
    expect(found.filter((token, i) => token?.refreshCount !== i || token.kind !== kinds[i % 3])).to.deep.equal([])
    expect(found[49_999]).to.deep.equal(made[49_999]?.token)
  })

  describe('is refused, set aside and not loaded at all', () => {
    /** The store does not open, the operator is told, the file is kept under another name, and the next start finds none. */
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

    it('where it was cut, at whichever byte', async () => {
      const whole = await writtenFile()
      for (let length = 0; length < whole.length - 1; length++) {
        writeFileSync(file, whole.subarray(0, length))
        await expectRefused(/is not a whole snapshot/)
      }
    })

    it('where any one byte was changed', async () => {
      const whole = await writtenFile()
      for (let at = 0; at < whole.length - 1; at++) {
        const changed = Buffer.from(whole)
        changed[at] = (changed[at] as number) ^ 1
        writeFileSync(file, changed)
        await expectRefused(/is not a whole snapshot/)
      }
    })

    /** With a checksum that is right. */
    const signed = (text: string) => `${text}end ${hmac(adminKey, text)}\n`
    const hmac = (secret: string, text: string) =>
      createHmac('sha256', `latchkey snapshot ${secret}`).update(text).digest('hex')
    const lineOfToken = (text: string) => text.split('\n').findIndex(line => /^[0-9A-Za-z]{14} /.test(line))

    function changeToken(text: string, change: (members: string[]) => unknown): string {
      const lines = text.split('\n')
      const at = lineOfToken(text)
      const members = (lines[at] as string).split(' ')
      change(members)
      lines[at] = members.join(' ')
      return signed(`${lines.slice(0, -2).join('\n')}\n`)
    }

    const files: [what: string, make: (whole: string) => string | Buffer, why: RegExp][] = [
      ['is empty', () => '', /too early/],
      ['is one line break', () => '\n', /first line/],
      [
        'is of another version',
        whole => whole.replace('tokens 2', 'tokens 3'),
        /first line is not "latchkey tokens 2"/,
      ],
      ['is of an earlier version', whole => whole.replace('tokens 2', 'tokens 1'), /first line/],
      ['is JSON', () => JSON.stringify({ tokens: [] }), /first line/],
      ['is noise', () => randomBytes(100_000), /first line/],
      ['is zeros, as after a crash', whole => Buffer.alloc(whole.length), /first line/],
      ['ends in zeros', whole => Buffer.concat([Buffer.from(whole.slice(0, -40)), Buffer.alloc(40)]), /checksum/],
      ['is followed by something', whole => `${whole}x`, /follows/],
      ['is there twice', whole => whole + whole, /follows/],
      ['has the checksum of another', whole => whole.replace(/end .*/, `end ${'0'.repeat(64)}`), /checksum/],
      ['has no checksum', whole => whole.replace(/end .*\n/, ''), /too early/],
      ['lacks a line', whole => whole.replace(/^[0-9A-Za-z]{14} .*\n/m, ''), /checksum/],
      ['begins with a byte order mark', whole => `\ufeff${whole}`, /first line/],
      ['signs a line that is no token', () => signed('latchkey tokens 2\nnonsense\n'), /line 2 is not a token/],
      ['signs terms that are no JSON', () => signed('latchkey tokens 2\n{nonsense\n'), /line 2|JSON/],
      [
        'signs a token without terms',
        whole => signed(whole.replace(/^\{.*\n/gm, '').replace(/end .*\n/, '')),
        /line 2/,
      ],
      ['signs an instant that is none', whole => changeToken(whole, m => m.splice(5, 1, 'NaN')), /is not a token/],
      ['signs a token with too much', whole => changeToken(whole, m => m.push('1')), /is not a token/],
      ['signs a token with too little', whole => changeToken(whole, m => m.pop()), /is not a token/],
      ['signs a token without a hash', whole => changeToken(whole, m => m.splice(1, 1, '')), /is not a token/],
      ['signs a token of no id', whole => changeToken(whole, m => m.splice(0, 1, 'short')), /is not a token/],
      [
        'signs terms of no kind',
        whole => signed(whole.replace('"kind":"sliding"', '"kind":"eternal"').replace(/end .*\n/, '')),
        /is not what tokens have in common/,
      ],
    ]
    for (const [what, make, why] of files) {
      it(`where it ${what}`, async () => {
        const whole = (await writtenFile()).toString()
        writeFileSync(file, make(whole))
        await expectRefused(why)
      })
    }

    it('where its checksum was made without the key, or with another', async () => {
      const body = (await writtenFile()).toString().replace(/end .*\n/, '')
      for (const mark of [createHash('sha256').update(body).digest('hex'), hmac(serviceKey, body)]) {
        writeFileSync(file, `${body}end ${mark}\n`)
        await expectRefused(/written with another ADMIN_KEY/)
      }
      await writtenFile()
      key = serviceKey
      await expectRefused(/written with another ADMIN_KEY/)
    })

    for (const mode of [0o622, 0o620, 0o602, 0o666]) {
      it(`where others may write to it: ${mode.toString(8)}`, async () => {
        await writtenFile()
        chmodSync(file, mode)
        await expectRefused(new RegExp(`others may write to it \\(mode ${mode.toString(8)}\\)`))
      })
    }

    it('where it belongs to another user', async function () {
      if (process.getuid?.() !== 0) this.skip() // only root can give a file away
      await writtenFile()
      chownSync(file, 65534, 65534)
      await expectRefused(/it belongs to another user \(65534\)/)
    })

    it('where it is a folder', async () => {
      mkdirSync(file)
      await expectRefused(/EISDIR/)
    })

    it('where it may not be read', async () => {
      await writtenFile()
      chmodSync(folder, 0o777)
      chmodSync(file, 0)
      const message = await withoutPrivileges(() => refusalOf(open()))
      expect(message).to.match(/^TOKEN_SNAPSHOT_FILE: .*EACCES/)
    })
  })

  describe('is refused where it cannot be removed, or not be set aside', () => {
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
      ['because a folder has the name of its first half', () => mkdirSync(`${file}.partial`)],
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

/** Asks on a connection of its own, so that servers close at once. */
async function ask(method: string, url: string, bearer: string | null, body?: unknown) {
  const headers = new Headers({ connection: 'close' })
  if (bearer !== null) headers.set('authorization', `Bearer ${bearer}`)
  if (body !== undefined) headers.set('content-type', 'application/json')
  const answer = await fetch(url, { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) })
  const text = await answer.text()
  return { status: answer.status, body: (text === '' ? {} : JSON.parse(text)) as Record<string, unknown> }
}

async function logIn(url: string): Promise<string> {
  const { status, body } = await ask('POST', `${url}/login`, null, demo)
  expect(status).to.equal(200)
  return body['token'] as string
}

describe('TOKEN_SNAPSHOT_FILE', () => {
  after(async () => {
    await closeServers()
    removeFolders()
  })

  it('is refused with a store of tokens that outlives restarts by itself', () => {
    const base = { SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey, TOKEN_SNAPSHOT_FILE: '/tmp/tokens' }
    for (const url of ['sqlite:tokens.db', 'postgres://localhost/tokens']) {
      let problems: string[] = []
      try {
        readAuthConfig({ ...base, TOKEN_STORE_URL: url })
      } catch (error) {
        problems = (error as ConfigError).problems
        expect(error).to.be.instanceOf(ConfigError)
      }
      expect(problems).to.have.length(1)
      expect(problems[0]).to.match(/^TOKEN_SNAPSHOT_FILE: expected only with TOKEN_STORE_URL=memory:/)
    }
    for (const url of [undefined, '', 'memory:']) {
      expect(readAuthConfig({ ...base, TOKEN_STORE_URL: url }).snapshotFile).to.equal('/tmp/tokens')
    }
    expect(readAuthConfig({ ...base, TOKEN_SNAPSHOT_FILE: ' ' }).snapshotFile).to.equal(null)
  })

  it('keeps over a restart what was live, as it was, and nothing that was ended', async () => {
    const clock = createClock()
    const env = { TOKEN_SNAPSHOT_FILE: join(newFolder(), 'tokens') }
    let auth = await startAuth({ env, now: clock.now })
    const issue = async (terms: Record<string, unknown>) =>
      (await ask('POST', `${auth.internalUrl}/tokens`, adminKey, { ttlSeconds: 600, ...terms })).body['token'] as string
    const validate = async (body: object) =>
      (await ask('POST', `${auth.internalUrl}/validateToken`, serviceKey, body)).body

    const endedWithAll = await logIn(auth.url)
    const { userId } = await validate({ token: endedWithAll })
    const endedFixed = await issue({ kind: 'fixed', userId })
    await ask('DELETE', `${auth.url}/sessions`, endedWithAll)
    const [slid, old, loggedOut, revoked] = [
      await logIn(auth.url),
      await logIn(auth.url),
      await logIn(auth.url),
      await logIn(auth.url),
    ]
    const consumed = await issue({ kind: 'single-use' })
    const looks: object[] = [
      { token: slid },
      { token: await issue({ kind: 'fixed', userId }) },
      { token: await issue({ kind: 'single-use', userId, purpose: 'reset' }), purpose: 'reset' },
      { token: await issue({ kind: 'sliding', purpose: 'dialog', absoluteTtlSeconds: 900 }), purpose: 'dialog' },
      { token: await issue({ kind: 'fixed' }) },
    ]
    clock.advance(20_000)
    await validate({ tokens: [slid, slid, consumed] })
    looks.push({ token: (await ask('POST', `${auth.url}/renew`, old)).body['token'] })
    await ask('POST', `${auth.url}/logout`, loggedOut)
    await ask('DELETE', `${auth.internalUrl}/tokens/${revoked.slice(3, 17)}`, adminKey)
    const verdicts = () => Promise.all(looks.map(body => validate({ ...body, touch: false })))
    const before = await verdicts()
    for (const verdict of before) expect(verdict).to.include({ authenticated: true })
    await auth.service.close()
    expect(JSON.stringify(auth.lines)).to.not.include('close_failed')

    clock.advance(20_000) // longer than the first idle time, not than the one that was slid to
    auth = await startAuth({ env, now: clock.now })
    expect(await verdicts()).to.deep.equal(before)
    for (const token of [endedWithAll, endedFixed, old, loggedOut, revoked, consumed]) {
      // A use of the old secret, so long after the renewal, would end the session.
      expect(await validate({ token, touch: token !== old })).to.deep.equal({ authenticated: false })
    }
    const listed = (await ask('GET', `${auth.url}/sessions`, slid)).body['sessions'] as { id: string }[]
    expect(listed.map(({ id }) => id)).to.deep.equal([slid.slice(3, 17), old.slice(3, 17)])

    expect((await ask('DELETE', `${auth.url}/sessions`, slid)).status).to.equal(204)
    expect(await validate({ token: slid })).to.deep.equal({ authenticated: false })
    expect(await validate({ token: await logIn(auth.url) })).to.include({ authenticated: true, userId })
  })

  it('drops the dead and those of unknown users, and says in the log how many', async () => {
    const clock = createClock()
    const env = { TOKEN_SNAPSHOT_FILE: join(newFolder(), 'tokens') }
    const first = await startAuth({ env, now: clock.now })
    expect(first.lines.some(({ event }) => event === 'tokens_restored')).to.equal(false)
    const own = await logIn(first.url)
    for (const [terms, count] of [
      [{ kind: 'fixed', ttlSeconds: 10 }, 2],
      [{ kind: 'fixed', ttlSeconds: 11 }, 3],
    ] as const) {
      for (let i = 0; i < count; i++) await ask('POST', `${first.internalUrl}/tokens`, adminKey, terms)
    }
    await first.service.close()
    clock.advance(10_000)
    const second = await startAuth({ env: { ...env, DEMO_USERNAME: 'another@example.com' }, now: clock.now })
    const told = second.lines.filter(({ event }) => event === 'tokens_restored')
    expect(told).to.have.length(1)
    expect(told[0]).to.include({ level: 'info', tokens: 3, dropped: 3 })
    const { body } = await ask('POST', `${second.internalUrl}/validateToken`, serviceKey, { token: own })
    expect(body).to.deep.equal({ authenticated: false })
  })

  describe('under ./startServer', () => {
    after(cleanUp)

    const statusOf = async (business: string, token: string) => (await ask('GET', `${business}/data`, token)).status

    it('logs nobody out over a planned restart, also where one fails for a taken port; a crash logs everybody out', async function () {
      this.timeout(120_000) // four starts, on a busy machine
      const file = join(newFolder(), 'tokens')
      const env = { TOKEN_SNAPSHOT_FILE: file, TOKEN_TTL_SECONDS: '60' }
      const first = runStartServer({ env })
      let at = await first.ready
      const [kept, ended] = [await logIn(at.auth), await logIn(at.auth)]
      expect((await ask('POST', `${at.auth}/logout`, ended)).status).to.equal(204)
      first.process.kill('SIGTERM')
      expect(await first.ended).to.equal(0)
      expect(statSync(file).mode & 0o777).to.equal(0o600)
      expect(readFileSync(file, 'utf8')).to.include(kept.slice(3, 17)).and.to.not.include('lk_')

      const taken = createServer().listen(0, '127.0.0.1')
      await once(taken, 'listening')
      const unlucky = runStartServer({ env: { ...env, AUTH_PORT: String((taken.address() as AddressInfo).port) } })
      expect(await unlucky.ended).to.equal(1)
      taken.close()
      expect(existsSync(file), 'a start that failed has lost the tokens').to.equal(true)

      const second = runStartServer({ env })
      at = await second.ready
      expect(existsSync(file)).to.equal(false)
      expect(await statusOf(at.business, kept)).to.equal(200)
      expect(await statusOf(at.business, ended)).to.equal(401)
      expect(second.stdout()).to.match(/"event":"tokens_restored","tokens":1,"dropped":0/)
      const [auth] = execFileSync('pgrep', ['-P', String(second.process.pid), '-f', 'services/auth'], {
        encoding: 'utf8',
      }).split('\n')
      process.kill(Number(auth), 'SIGKILL')
      // Auth is started again, without the tokens.
      await until(async () => (await statusOf(at.business, kept)) === 401)
      expect(existsSync(file)).to.equal(false)
      second.process.kill('SIGTERM')
      expect(await second.ended).to.equal(0)

      const third = runStartServer({ env })
      at = await third.ready
      expect(await statusOf(at.business, kept)).to.equal(401)
      await logIn(at.auth)
      rmSync(join(file, '..'), { recursive: true })
      third.process.kill('SIGTERM')
      expect(await third.ended, 'the tokens are lost, and the exit code says so').to.not.equal(0)
      const told = third
        .stdout()
        .split('\n')
        .find(line => line.includes('"event":"close_failed"'))
      expect(told).to.include('TOKEN_SNAPSHOT_FILE').and.to.include(file)
    })

    it('ends with 1 and one sentence where the file is not a whole snapshot, and leaves none for the next start', async () => {
      const folder = newFolder()
      const file = join(folder, 'tokens')
      writeFileSync(file, 'latchkey tokens 2\n')
      const run = runStartServer({ env: { TOKEN_SNAPSHOT_FILE: file } })
      expect(await run.ended).to.equal(1)
      expect(run.stderr()).to.match(/^TOKEN_SNAPSHOT_FILE: .* is not a whole snapshot \(it ends too early\)/m)
      expect(run.stderr()).to.not.match(/^\s+at /m)
      expect(run.stdout()).to.not.include('"event":"listening"')
      expect(readdirSync(folder)).to.have.length(1)
      expect(existsSync(file)).to.equal(false)
    })

    it('is refused by --check-config with another store', async () => {
      const env = { TOKEN_SNAPSHOT_FILE: '/tmp/tokens', TOKEN_STORE_URL: 'redis://localhost' }
      const { ended, stderr } = runStartServer({ args: ['--check-config'], env })
      expect(await ended).to.equal(1)
      expect(stderr()).to.match(/^ {2}TOKEN_SNAPSHOT_FILE: expected only with/m)
    })
  })
})
