// stores/memory/snapshotLines.ts: snapshots that an earlier version wrote.
import { createHmac } from 'node:crypto'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { openSnapshotStore } from '../../../services/auth/stores/memory/snapshot.ts'
import { noAuthority, type TokenRecord } from '../../../services/auth/stores/tokenPort.ts'
import { adminKey } from '../../support/credentials.ts'
import { newFolder, removeFolders } from '../../support/scratchFolders.ts'
import { ownersWith } from '../../support/storeFixtures.ts'

const now = 1_798_761_600_000
const minute = 60_000
const lineage = Buffer.alloc(32, 7).toString('base64url')

// What the earlier version wrote, except the last line.
const lines = `latchkey tokens 2
{"kind":"fixed","purpose":"confirm","userId":null,"username":null,"credentialVersion":0,"ttlMs":60000}
tag0time000005 ubm5ubm5ubm5ubm5ubm5 0 1798761595000 1798761599000 1798761660000 1798762200000 5 - - -
{"kind":"sliding","purpose":null,"userId":"anna","username":"anna@example.com","credentialVersion":1,"ttlMs":60000}
tag0time000001 JSUlJSUlJSUlJSUlJSUl 1 1798761595000 1798761599000 1798761660000 1798762200000 1 = - -
{"kind":"fixed","purpose":null,"userId":"anna","username":"anna@example.com","credentialVersion":1,"ttlMs":60000}
tag0time000002 SkpKSkpKSkpKSkpKSkpK 2 1798761595000 1798761599000 1798761660000 1798762200000 2 tag0time000001 - -
{"kind":"single-use","purpose":"reset","userId":"anna","username":"anna@example.com","credentialVersion":1,"ttlMs":315360000000}
tag0time000004 lJSUlJSUlJSUlJSUlJSU 3 1798761595000 1798761599000 1798761660000 2114121600000 4 - - -
{"kind":"sliding","purpose":null,"userId":"bert","username":"Бертольд “B” 🔑","credentialVersion":1,"ttlMs":60000}
tag0time000003 yMjIyMjIyMjIyMjIyMjI 4 1798761595000 1798761600000 1798761660000 1798762200000 4 = BwcHBwcHBwcHBwcHBwcH 1798761600000
`

/** Adds a correct checksum. */
const signed = (text: string) =>
  `${text}end ${createHmac('sha256', `latchkey snapshot ${adminKey}`).update(text).digest('hex')}\n`

describe('a snapshot of an earlier version', () => {
  let folder: string
  let file: string
  beforeEach(() => {
    folder = newFolder()
    file = join(folder, 'tokens')
  })
  after(removeFolders)

  const open = (versions: Record<string, number> = { anna: 1, bert: 1 }) =>
    openSnapshotStore({ file, key: adminKey, ownerOf: ownersWith(versions), now: () => now })

  function write(text: string): void {
    writeFileSync(file, text, { mode: 0o600 })
  }

  const refOf = (number: number, fill: number) => {
    return { id: `tag0time00000${number}`, hash: Buffer.alloc(32, fill).toString('base64url') }
  }
  const [first, second, renewed, reset, guest] = [
    refOf(1, 37),
    refOf(2, 74),
    refOf(3, 200),
    refOf(4, 148),
    refOf(5, 185),
  ]

  const instants = { createdAt: now - 5000, lastUsedAt: now - 1000, expiresAt: now + minute }
  const ofAnna = { userId: 'anna', username: 'anna@example.com', credentialVersion: 1, ttlMs: minute }
  const token1: TokenRecord = {
    id: first.id,
    kind: 'sliding',
    purpose: null,
    ...ofAnna,
    ...instants,
    absoluteExpiresAt: now + 10 * minute,
    loginId: first.id,
    refreshCount: 1,
    scope: null,
    paused: false,
    rate: null,
    usesLeft: null,
    name: null,
    parent: null,
    authority: noAuthority,
  }

  it('restores every token as it was', async () => {
    write(signed(lines))
    const { store, restored } = await open()
    expect(restored).to.deep.equal({ tokens: 5, dropped: 0 })
    const look = async (purpose: string | null) => store.look([first, second, renewed, reset, guest], now, purpose)
    const token2: TokenRecord = { ...token1, id: second.id, kind: 'fixed', refreshCount: 2 }
    const token3: TokenRecord = {
      ...token1,
      id: renewed.id,
      loginId: renewed.id,
      userId: 'bert',
      username: 'Бертольд “B” 🔑',
      lastUsedAt: now,
      refreshCount: 4,
    }
    expect(await look(null)).to.deep.equal([token1, token2, token3, null, null])
    const days3650 = 315_360_000_000
    const token4: TokenRecord = {
      ...token1,
      id: reset.id,
      kind: 'single-use',
      purpose: 'reset',
      loginId: null,
      ttlMs: days3650,
      absoluteExpiresAt: now + days3650,
      refreshCount: 4,
    }
    expect((await look('reset'))[3]).to.deep.equal(token4)
    expect((await look('confirm'))[4]).to.include({ userId: null, username: null, kind: 'fixed', credentialVersion: 0 })
    const own = await store.findByUser('anna', now)
    expect(own.map(({ id }) => id)).to.deep.equal([first.id, second.id, reset.id])
    expect(await store.findRenewed(renewed.id, lineage, now - 1)).to.equal(null)
    expect(await store.findRenewed(renewed.id, lineage, now)).to.deep.equal(token3)
    expect(readdirSync(folder)).to.deep.equal([])
  })

  it('restores more tokens than fit in one block', async () => {
    const [head = '', terms = ''] = lines.match(/^latchkey.*\n|^\{"kind":"sliding".*"anna".*\n/gm) ?? []
    const line = (i: number) => {
      const id = `tag0time${String(i).padStart(6, '0')}`
      return `${id} JSUlJSUlJSUlJSUlJSUl 0 1798761595000 1798761599000 1798761660000 1798762200000 ${i} = - -\n`
    }
    write(signed(head + terms + Array.from({ length: 20_000 }, (_, i) => line(i)).join('')))
    const { store, restored } = await open()
    expect(restored).to.deep.equal({ tokens: 20_000, dropped: 0 })
    const own = await store.findByUser('anna', now)
    expect(own.map(({ refreshCount }) => refreshCount)).to.deep.equal(Array.from({ length: 20_000 }, (_, i) => i))
  })

  it('asks once for the version of a user whose tokens follow each other', async () => {
    write(signed(lines))
    const asked: string[] = []
    const ownerOf = async (userId: string) => {
      asked.push(userId)
      return { credentialVersion: 1, authority: noAuthority }
    }
    await openSnapshotStore({ file, key: adminKey, ownerOf, now: () => now })
    expect(asked).to.deep.equal(['anna', 'bert'])
  })

  it('drops the tokens of unknown users, and those that their user has ended', async () => {
    write(signed(lines))
    expect((await open({ anna: 2 })).restored).to.deep.equal({ tokens: 1, dropped: 4 })
  })

  function changeToken(change: (members: string[]) => unknown): string {
    const members = (lines.split('\n')[2] as string).split(' ')
    change(members)
    return signed(lines.replace(/^tag0.*$/m, members.join(' ')))
  }

  const damaged: [what: string, text: string, why: RegExp][] = [
    ['is cut', signed(lines).slice(0, -100), /line 11 is not a token/],
    ['has no checksum', lines, /too early/],
    ['differs in one letter', signed(lines).replace('JSUl', 'JSUm'), /checksum/],
    ['is followed by more data', `${signed(lines)}x`, /follows/],
    ['has the checksum of another', `${lines}end ${'0'.repeat(64)}\n`, /checksum/],
    ['signs a line that is not a token', signed('latchkey tokens 2\nnonsense\n'), /line 2 is not a token/],
    ['signs terms that are not JSON', signed('latchkey tokens 2\n{nonsense\n'), /line 2|JSON/],
    ['signs a token without terms', signed(lines.replace(/^\{.*\n/gm, '')), /line 2/],
    ['signs an invalid instant', changeToken(m => m.splice(5, 1, 'NaN')), /is not a token/],
    ['signs a token with too much', changeToken(m => m.push('1')), /is not a token/],
    ['signs a token with too little', changeToken(m => m.pop()), /is not a token/],
    ['signs a token without a hash', changeToken(m => m.splice(1, 1, '')), /is not a token/],
    ['signs a token with an invalid id', changeToken(m => m.splice(0, 1, 'short')), /is not a token/],
    [
      'signs terms of an unknown kind',
      signed(lines.replace('"kind":"sliding"', '"kind":"eternal"')),
      /is not a set of shared terms/,
    ],
  ]
  for (const [what, text, why] of damaged) {
    it(`is refused, set aside and not loaded if it ${what}`, async () => {
      write(text)
      const message = await open().then(
        () => 'it was loaded',
        (error: Error) => error.message,
      )
      expect(message).to.match(/^TOKEN_SNAPSHOT_FILE: .* is not a complete snapshot/)
      expect(message).to.match(why)
      expect(readdirSync(folder)[0]).to.match(/^tokens\.refused-\d+$/)
    })
  }
})
