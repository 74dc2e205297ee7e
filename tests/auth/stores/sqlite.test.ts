// A SQLite file that is readable by others, locked, damaged, or on a full or read-only disk.

import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { openTokenStore, openUserStore } from '../../../services/auth/stores/index.ts'
import { isAdmitted, type TokenRef } from '../../../services/auth/stores/tokenPort.ts'
import type { UserRecord } from '../../../services/auth/stores/userPort.ts'
import { slackMs } from '../../support/slack.ts'
import {
  everyCall,
  insertedToken,
  insertedUser,
  openStores,
  reads,
  repeated,
  type Stores,
  start,
  writes,
} from '../../support/sqlStores.ts'
import { expectAllToReject, expectRecovery } from '../../support/storeFaults.ts'
import { lineage, minute, newHash, toMessage } from '../../support/storeFixtures.ts'
import { type Peer, startPeer } from '../../support/storePeer.ts'

describe('a SQLite file', () => {
  let folder: string
  let opened: { close(): Promise<void> }[]
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'latchkey-'))
    opened = []
  })
  afterEach(async () => {
    await Promise.all(opened.map(stores => stores.close()))
    rmSync(folder, { recursive: true })
  })

  const path = () => join(folder, 'latchkey.db')

  async function open(): Promise<Stores> {
    const stores = await openStores(`sqlite:${path()}`)
    opened.push(stores)
    return stores
  }

  /** The message for the operator, from both stores. */
  async function refusal(file = path()): Promise<string> {
    const open = [openTokenStore, openUserStore].map(open => open(`sqlite:${file}`).then(() => 'opened', toMessage))
    const [tokens = '', users = ''] = await Promise.all(open)
    expect(users.replace('USER_STORE_URL', 'TOKEN_STORE_URL')).to.equal(tokens)
    return tokens.replace('TOKEN_STORE_URL: ', '')
  }

  it('is readable by its owner only, like the files beside it', async () => {
    const mask = process.umask(0)
    try {
      await insertedToken(await open())
    } finally {
      process.umask(mask)
    }
    const modes = readdirSync(folder).map(name => [name, statSync(join(folder, name)).mode & 0o777])
    expect(modes).to.have.deep.members([
      ['latchkey.db', 0o600],
      ['latchkey.db-shm', 0o600],
      ['latchkey.db-wal', 0o600],
    ])
  })

  it('that is readable by every user of the machine is made private at the start, like the files beside it', async () => {
    const stores = await open()
    await insertedToken(stores)
    const names = readdirSync(folder)
    expect(names).to.have.length(3)
    for (const mode of [0o644, 0o666, 0o604]) {
      for (const name of names) chmodSync(join(folder, name), mode)
      const warnings: string[] = []
      const again = await openUserStore(`sqlite:${path()}`, warning => warnings.push(warning))
      await again.close()
      for (const name of names) expect(statSync(join(folder, name)).mode & 0o777, name).to.equal(0o600)
      expect(warnings).to.have.length(1)
      expect(warnings[0]).to.include(path()).and.include('mode is 600 now')
    }
  })

  it('that is readable by a group stays as it is', async () => {
    await insertedToken(await open())
    chmodSync(path(), 0o640)
    const warnings: string[] = []
    await (await openUserStore(`sqlite:${path()}`, warning => warnings.push(warning))).close()
    expect(statSync(path()).mode & 0o777).to.equal(0o640)
    expect(warnings).to.deep.equal([])
  })

  describe('that another process writes to', () => {
    let other: DatabaseSync
    let stores: Stores
    beforeEach(async () => {
      stores = await open()
      other = new DatabaseSync(path())
      other.exec('begin immediate')
    })
    afterEach(() => other.close())

    it('rejects a write within a second, keeps reading, and does not block the process', async () => {
      let longestMs = 0
      let last = performance.now()
      const timer = setInterval(() => {
        longestMs = Math.max(longestMs, performance.now() - last)
        last = performance.now()
      }, 5)
      const rejected = expectAllToReject(repeated(5, writes(stores)))
      for (const read of Object.values(reads(stores))) await read()
      await rejected
      clearInterval(timer)
      expect(longestMs).to.be.below(200 + slackMs)
      other.exec('rollback')
      await expectRecovery(everyCall(stores), 2000)
    })

    it('writes when the other process is done, if that is soon', async () => {
      const calls = Object.values(everyCall(stores)).map(call => call())
      await sleep(200) // meanwhile the other process holds the lock
      other.exec('commit')
      await Promise.all(calls)
    })

    it('in the middle of a batch, of which it touches each token once', async () => {
      other.exec('rollback')
      const purpose = 'invite'
      const limited = await insertedToken(stores, { purpose, usesLeft: 100 })
      for (let steps = 0; steps < 20; steps++) {
        const once = await insertedToken(stores, { purpose, kind: 'single-use' })
        const touched = stores.tokens.touch([limited.ref, once.ref], start, purpose)
        for (let i = 0; i < steps; i++) await null
        const isWriting = writeFor(10)
        const found = await touched
        await isWriting
        expect(found.map(isAdmitted), `${steps} steps`).to.deep.equal([true, true])
        expect(found[0]).to.include({ usesLeft: 99 - steps })
      }
    })

    /** Does nothing if the store is writing. */
    async function writeFor(ms: number): Promise<void> {
      try {
        other.exec('begin immediate')
      } catch {
        return
      }
      await sleep(ms)
      other.exec('commit')
    }
  })

  describe('that is damaged', () => {
    beforeEach(async () => {
      const stores = await openStores(`sqlite:${path()}`)
      for (let i = 0; i < 200; i++) {
        await insertedToken(stores)
        await insertedUser(stores)
      }
      await stores.close()
    })

    const damages: Record<string, [(bytes: Buffer) => Buffer, RegExp]> = {
      'has a garbage header': [
        bytes => bytes.fill('garbage', 0, 100),
        /is not a SQLite database; nothing was changed$/,
      ],
      'has garbage in the middle': [
        bytes => bytes.fill('garbage', bytes.length / 2, bytes.length / 2 + 8192),
        /is damaged; nothing was changed: restore a backup$/,
      ],
      'is cut in half': [
        bytes => bytes.subarray(0, bytes.length / 2),
        /is damaged; nothing was changed: restore a backup$/,
      ],
      'is cut to less than a page': [
        bytes => bytes.subarray(0, 1000),
        /is damaged; nothing was changed: restore a backup$/,
      ],
      'is cut to less than a header': [
        bytes => bytes.subarray(0, 50),
        /is damaged; nothing was changed: restore a backup$/,
      ],
    }
    for (const [name, [damage, sentence]] of Object.entries(damages)) {
      it(`and ${name} is refused with a sentence and left as it is`, async () => {
        const bytes = damage(readFileSync(path()))
        writeFileSync(path(), bytes)
        const message = await refusal()
        expect(message).to.match(sentence).and.to.include(`the file ${path()} `)
        expect(readFileSync(path()).equals(bytes)).to.equal(true)
        expect(readdirSync(folder)).to.deep.equal(['latchkey.db'])
      })
    }
  })

  it('in a missing folder is refused with a sentence, and the folder is not created', async () => {
    const file = join(folder, 'missing', 'latchkey.db')
    expect(await refusal(file)).to.equal(
      `the file ${file} cannot be opened: does its folder exist, and may this user write to it?`,
    )
    expect(existsSync(join(folder, 'missing'))).to.equal(false)
  })

  it('that is a folder is refused with a sentence', async () => {
    expect(await refusal(folder)).to.equal(
      `the file ${folder} cannot be opened: does its folder exist, and may this user write to it?`,
    )
  })

  describe('on a disk of its own', () => {
    const disks: string[] = []
    let asOther: Peer | undefined
    before(function () {
      if (!canMount()) {
        console.log('  not tested: SQLite on a full or read-only disk, because only root can mount one')
        this.skip()
      }
    })
    afterEach(async () => {
      await Promise.all(opened.splice(0).map(stores => stores.close()))
      await asOther?.end()
      for (const mountPoint of disks.splice(0)) execFileSync('umount', [mountPoint])
    })

    function mountMemory(size: string): void {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', folder])
      disks.push(folder)
    }

    /** Inserts tokens and users, so that each kind of write has something to change. */
    async function prepare(stores: Stores) {
      const tokens = await Promise.all(Array.from({ length: 6 }, () => insertedToken(stores)))
      const users = await Promise.all(Array.from({ length: 2 }, () => insertedUser(stores)))
      const refs = tokens.map(({ ref }) => ref)
      const [touched, renewed, deleted, deletedById, ended] = refs as [TokenRef, TokenRef, TokenRef, TokenRef, TokenRef]
      const [updated, removed] = users as [UserRecord, UserRecord]
      const endedUser = tokens[4]?.token.userId as string
      return {
        writes: {
          insert: () => insertedToken(stores),
          touch: () => stores.tokens.touch([touched], start + 1, null),
          renew: () => stores.tokens.renew(renewed, newHash(), lineage, start),
          delete: () => stores.tokens.delete(deleted, start),
          deleteById: () => stores.tokens.deleteById(deletedById.id, start, null),
          raiseFloor: () => stores.tokens.raiseFloor(endedUser, 2, ended.id),
          deleteExpired: () => stores.tokens.deleteExpired(start + minute, 100),
          'insert a user': () => insertedUser(stores),
          'update a user': () => stores.users.update(updated.id, 1, { passwordHash: 'another', credentialVersion: 2 }),
          'delete a user': () => stores.users.delete(removed.id),
        },
        async expectUnchanged(now: Stores): Promise<void> {
          expect(await now.tokens.look(refs, start, null)).to.deep.equal(tokens.map(({ token }) => token))
          for (const user of users) expect(await now.users.findById(user.id)).to.deep.equal(user)
        },
      }
    }

    it('that is full: it rejects what it cannot write, keeps reading, and recovers when there is room', async () => {
      mountMemory('512k')
      const stores = await open()
      const { writes, expectUnchanged } = await prepare(stores)
      const ballast = join(folder, 'ballast')
      const file = openSync(ballast, 'w')
      expect(() => {
        for (;;) writeSync(file, Buffer.alloc(1024))
      }).to.throw('ENOSPC')
      closeSync(file)
      for (let i = 0; i < 3; i++) {
        await expectAllToReject(writes)
        await expectUnchanged(stores)
        for (const read of Object.values(reads(stores))) await read()
      }
      expect(await writes.insert().catch(toMessage)).to.equal('database or disk is full')
      rmSync(ballast)
      await expectRecovery(everyCall(stores), 2000)
      await expectUnchanged(stores)
      await expectUnchanged(await open())
      for (const write of Object.values(writes)) await write()
    })

    it('that becomes read-only: it rejects every write, keeps reading, and loses nothing', async function () {
      const image = `${folder}.img`
      try {
        writeFileSync(image, Buffer.alloc(4 * 1024 * 1024))
        try {
          execFileSync('mkfs.ext4', ['-q', image])
          execFileSync('mount', ['-o', 'loop,errors=remount-ro', image, folder], { stdio: 'pipe' })
        } catch {
          console.log('      not tested: SQLite on a failing disk, because ext4 cannot be mounted here')
          return this.skip()
        }
        disks.push(folder)
        const stores = await open()
        const { writes, expectUnchanged } = await prepare(stores)
        execFileSync('mount', ['-o', 'remount,abort', folder]) // what ext4 does when the disk fails
        for (let i = 0; i < 3; i++) {
          await expectAllToReject(writes)
          await expectUnchanged(stores)
        }
        expect(await refusal()).to.equal(`the file ${path()} is read-only for this user`)
      } finally {
        rmSync(image)
      }
    })

    it('that is read-only: it is refused with a sentence and left as it is', async () => {
      mountMemory('1m')
      const stores = await openStores(`sqlite:${path()}`)
      await stores.close()
      const bytes = readFileSync(path())
      execFileSync('mount', ['-o', 'remount,ro', folder])
      expect(await refusal()).to.equal(
        `the file ${path()} cannot be opened: does its folder exist, and may this user write to it?`,
      )
      expect(readFileSync(path()).equals(bytes)).to.equal(true)
    })

    it('with a file that this user can read but not write: it is refused with a sentence', async () => {
      mountMemory('1m')
      const stores = await openStores(`sqlite:${path()}`)
      await stores.close()
      chmodSync(path(), 0o644)
      asOther = await startPeer({ uid: 65534, gid: 65534 })
      for (const mode of [0o755, 0o777]) {
        chmodSync(folder, mode)
        const message = await asOther.open(`sqlite:${path()}`).then(() => 'opened', toMessage)
        expect(message).to.equal(`TOKEN_STORE_URL: the file ${path()} is read-only for this user`)
      }
    })
  })
})

function canMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', folder], { stdio: 'ignore' })
    execFileSync('umount', [folder])
    return true
  } catch {
    return false
  } finally {
    rmSync(folder, { recursive: true })
  }
}
