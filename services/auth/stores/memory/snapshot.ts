// A memory store that survives a planned restart: `close` writes it to a file, and opening it reads and removes the
// file. The file has a line for each set of shared terms and a line for each token, with hashes but no secrets.
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { finished } from 'node:stream/promises'
import { tokenKinds } from '../../../../packages/client/contract.ts'
import type { TokenRecord, TokenRef, TokenStore } from '../ports.ts'
import { openTokenStore, type Renewal } from './tokenStore.ts'

export interface SnapshotOptions {
  file: string
  /** A secret of the operator. A snapshot written with a different key is rejected. */
  key: string
  /** The user's `credentialVersion`; null for an unknown user, whose tokens are dropped. */
  versionOf: (userId: string) => Promise<number | null>
  now: () => number
}

export interface RestoredStore {
  store: TokenStore
  /** Null if there was no snapshot. */
  restored: { tokens: number; dropped: number } | null
}

const firstLine = 'latchkey tokens 2'
const shape = /^[0-9A-Za-z]{14} [\w-]{20}$/ // an id, and the part of a hash that the store keeps
const loginShape = /^([0-9A-Za-z]{14}|=|-)$/ // `=`: the token's own id
const renewalShape = /^([\w-]{20} \d{1,15}|- -)$/

interface Line {
  ref: TokenRef
  token: TokenRecord
  renewal: Renewal | null
}

type Terms = Pick<TokenRecord, 'kind' | 'purpose' | 'userId' | 'username' | 'credentialVersion' | 'ttlMs'>

/**
 * Resolves after the file has been removed, so that an old snapshot can never revive a revoked token. If the file is
 * not a complete snapshot, renames it, loads nothing, and rejects with a message for the operator.
 */
export async function openSnapshotStore({ file, key, versionOf, now }: SnapshotOptions): Promise<RestoredStore> {
  const store = await openTokenStore()
  const restored = await restore()
  let closing: Promise<void> | null = null
  return {
    restored,
    store: {
      ...store,
      close() {
        closing ??= write().catch(failWith('cannot be written')).finally(store.close)
        return closing
      },
    },
  }

  async function restore(): Promise<RestoredStore['restored']> {
    const snapshot = await open(file, 'r').catch((error: NodeJS.ErrnoException) =>
      error.code === 'ENOENT' ? null : failWith('cannot be read')(error),
    )
    if (snapshot === null) return null
    try {
      return await restoreFrom(snapshot)
    } finally {
      await snapshot.close()
    }
  }

  async function restoreFrom(snapshot: FileHandle): Promise<RestoredStore['restored']> {
    try {
      await requireOwnFile(snapshot)
      await readTokens(snapshot, key, () => {}) // verify the whole file before loading any of it
    } catch (cause) {
      const aside = `${file}.refused-${now()}`
      const why = (cause as Error).message
      await rename(file, aside).catch(failWith(`is not a complete snapshot (${why}) and cannot be set aside`))
      throw new Error(
        `TOKEN_SNAPSHOT_FILE: ${file} is not a complete snapshot (${why}). It was renamed to ${aside}; start again without it.`,
      )
    }
    const known = new Map<string, number | null>()
    const counts = { tokens: 0, dropped: 0 }
    const at = now()
    await readTokens(snapshot, key, async ({ ref, token, renewal }) => {
      const { userId } = token
      if (userId !== null && !known.has(userId)) known.set(userId, await versionOf(userId))
      const credentialVersion = userId === null ? 0 : (known.get(userId) ?? Infinity)
      const isWanted = token.expiresAt > at && token.credentialVersion >= credentialVersion
      // Use the user's current version: users in memory start again at 1, so their next floor is 2 and must end this
      // token.
      if (isWanted) store.restore(ref, { ...token, credentialVersion }, renewal)
      counts[isWanted ? 'tokens' : 'dropped']++
    })
    await rm(file).catch(failWith('cannot be removed'))
    await flushFolder(file)
    return counts
  }

  function failWith(what: string) {
    return (cause: NodeJS.ErrnoException): never => {
      throw new Error(`TOKEN_SNAPSHOT_FILE: ${file} ${what} (${cause.code ?? cause.message}).`, { cause })
    }
  }

  /** Writes to a temporary file and renames it, so that a crash never leaves half a snapshot. */
  async function write(): Promise<void> {
    // After a failed start there are no tokens, and the snapshot of the previous process must not be overwritten.
    if (store.entries().next().done) return
    const partial = `${file}.partial`
    const checksum = createChecksum(key)
    await rm(partial, { force: true })
    const stream = createWriteStream(partial, { flags: 'wx', mode: 0o600, highWaterMark: 1 << 20 })
    const done = finished(stream)
    done.catch(() => {})
    let chunk = ''
    const flush = async () => {
      checksum.update(chunk)
      if (!stream.write(chunk)) await Promise.race([once(stream, 'drain'), done])
      chunk = ''
    }
    chunk += `${firstLine}\n`
    const known = new Map<string, number>()
    for (const { ref, token, renewal } of store.entries()) {
      if (token.expiresAt <= now()) continue
      const { kind, purpose, userId, username, credentialVersion, ttlMs } = token
      const shared = { kind, purpose, userId, username, credentialVersion, ttlMs } satisfies Terms
      const terms = JSON.stringify(shared).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029') // readline takes these for line ends
      let number = known.get(terms)
      if (number === undefined) {
        number = known.size
        known.set(terms, number)
        chunk += `${terms}\n`
      }
      const { createdAt, lastUsedAt, expiresAt, absoluteExpiresAt, refreshCount, loginId } = token
      const numbers = [number, createdAt, lastUsedAt, expiresAt, absoluteExpiresAt, refreshCount]
      const login = loginId === ref.id ? '=' : (loginId ?? '-')
      const members = [ref.id, ref.hash, ...numbers, login, renewal?.lineage ?? '-', renewal?.renewedAt ?? '-']
      chunk += `${members.join(' ')}\n`
      if (chunk.length > 1 << 16) await flush()
    }
    await flush()
    stream.end(`end ${checksum.digest('hex')}\n`)
    await done
    const handle = await open(partial, 'r')
    await handle.sync().finally(() => handle.close())
    await rename(partial, file)
    await flushFolder(file)
  }
}

/** Throws if the file is not a complete snapshot that was written with this key. */
async function readTokens(
  snapshot: FileHandle,
  key: string,
  take: (line: Line) => Promise<void> | void,
): Promise<void> {
  const checksum = createChecksum(key)
  const terms: Terms[] = []
  let lineNumber = 0
  let ended = false
  for await (const line of createInterface({
    input: snapshot.createReadStream({ start: 0, autoClose: false }),
    crlfDelay: Infinity,
  })) {
    if (++lineNumber === 1 && line !== firstLine) throw new Error(`its first line is not "${firstLine}"`)
    if (ended) throw new Error(`something follows its last line`)
    if (line.startsWith('end ')) {
      if (line !== `end ${checksum.digest('hex')}`)
        throw new Error('its checksum is wrong, or it was written with another ADMIN_KEY')
      ended = true
      continue
    }
    checksum.update(`${line}\n`)
    if (line.startsWith('{')) terms.push(parseTerms(line, lineNumber))
    else if (lineNumber > 1) await take(parseToken(line, terms, lineNumber))
  }
  if (!ended) throw new Error('it ends too early')
}

/** Authenticates the content. The key is derived for this purpose alone, so the checksum is useless anywhere else. */
function createChecksum(key: string) {
  return createHmac('sha256', `latchkey snapshot ${key}`)
}

/** Does nothing on Windows, which has no such owners or modes. */
async function requireOwnFile(snapshot: FileHandle): Promise<void> {
  if (process.geteuid === undefined) return
  const { uid, mode } = await snapshot.stat()
  if (uid !== process.geteuid()) throw new Error(`it belongs to another user (${uid})`)
  if (mode & 0o022) throw new Error(`others may write to it (mode ${(mode & 0o777).toString(8)})`)
}

function parseTerms(line: string, lineNumber: number): Terms {
  const terms = JSON.parse(line) as Terms
  const { kind, ttlMs, credentialVersion } = terms
  if (!tokenKinds.includes(kind) || !Number.isSafeInteger(ttlMs) || !Number.isSafeInteger(credentialVersion)) {
    throw new Error(`line ${lineNumber} is not a set of shared terms`)
  }
  return terms
}

function parseToken(line: string, terms: Terms[], lineNumber: number): Line {
  const [id = '', hash = '', number, ...members] = line.split(' ')
  const own = terms[Number(number)]
  const numbers = members.slice(0, 5).map(Number)
  const [login = '', lineage = '', renewedAt = '', ...more] = members.slice(5)
  const renewal = lineage === '-' ? null : { lineage, renewedAt: Number(renewedAt) }
  if (
    own === undefined ||
    !shape.test(`${id} ${hash}`) ||
    !numbers.every(Number.isSafeInteger) ||
    !loginShape.test(login) ||
    !renewalShape.test(`${lineage} ${renewedAt}`) ||
    more.length > 0
  ) {
    throw new Error(`line ${lineNumber} is not a token`)
  }
  const [createdAt, lastUsedAt, expiresAt, absoluteExpiresAt, refreshCount] = numbers as [
    number,
    number,
    number,
    number,
    number,
  ]
  const loginId = login === '-' ? null : login === '=' ? id : login
  const token = { ...own, id, createdAt, loginId, lastUsedAt, expiresAt, absoluteExpiresAt, refreshCount }
  return { ref: { id, hash }, token, renewal }
}

/** Creating, renaming or removing a file is durable only after its folder has been flushed. */
async function flushFolder(file: string): Promise<void> {
  const folder = await open(dirname(file), 'r')
  await folder.sync().finally(() => folder.close())
}
