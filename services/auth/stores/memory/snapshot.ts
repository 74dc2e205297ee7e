// A memory store that survives a planned restart: `close` writes it to a file, and opening it reads and removes the
// file. Hides how the file stays whole, private and authentic. Its content has hashes but no secrets.
import { createHmac } from 'node:crypto'
import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { TokenStore } from '../tokenPort.ts'
import { loadBlock, packTokens, readBlocks, type TokenOwner } from './snapshotBlocks.ts'
import { hasLines, readLines } from './snapshotLines.ts'
import { createMemory, createTokenStore } from './tokenStore.ts'

export interface SnapshotOptions {
  file: string
  /** A secret of the operator. A snapshot written with a different key is rejected. */
  key: string
  /** The user as they are now; null for an unknown user, whose tokens are dropped. */
  ownerOf: (userId: string) => Promise<TokenOwner | null>
  now: () => number
}

export interface RestoredStore {
  store: TokenStore
  /** Null if there was no snapshot. */
  restored: { tokens: number; dropped: number } | null
}

/**
 * Resolves after the file has been removed, so that an old snapshot can never revive a revoked token. If the file is
 * not a complete snapshot, renames it, loads nothing, and rejects with a message for the operator.
 */
export async function openSnapshotStore({ file, key, ownerOf, now }: SnapshotOptions): Promise<RestoredStore> {
  const memory = createMemory()
  const store = createTokenStore(memory)
  const restored = await restore()
  let closing: Promise<void> | null = null
  return {
    restored,
    store: {
      ...store,
      close() {
        // Nothing can change the store once it is closed, so the snapshot has no token that was ended meanwhile.
        closing ??= store.close().then(write).catch(failWith('cannot be written'))
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
    let readAll = readBlocks
    let [users, tokens] = [0, 0]
    try {
      await requireOwnFile(snapshot)
      if (await hasLines(snapshot)) readAll = readLines
      // Verify the whole file before loading any of it.
      for await (const { head } of readAll(snapshot, createChecksum(key))) {
        users += head.users.length
        tokens += head.users.reduce((sum, [, , rows]) => sum + rows, 0)
      }
    } catch (cause) {
      const aside = `${file}.refused-${now()}`
      const why = (cause as Error).message
      await rename(file, aside).catch(failWith(`is not a complete snapshot (${why}) and cannot be set aside`))
      throw new Error(
        `TOKEN_SNAPSHOT_FILE: ${file} is not a complete snapshot (${why}). It was renamed to ${aside}; start again without it.`,
      )
    }
    memory.users.reserve(users)
    memory.table.reserve(tokens)
    const restored = { tokens: 0, dropped: 0 }
    const at = now()
    for await (const block of readAll(snapshot, createChecksum(key))) {
      const { tokens, dropped } = await loadBlock(block, { memory, ownerOf, now: at })
      restored.tokens += tokens
      restored.dropped += dropped
    }
    await rm(file).catch(failWith('cannot be removed'))
    await flushFolder(file)
    return restored
  }

  function failWith(what: string) {
    return (cause: NodeJS.ErrnoException): never => {
      throw new Error(`TOKEN_SNAPSHOT_FILE: ${file} ${what} (${cause.code ?? cause.message}).`, { cause })
    }
  }

  /** Writes to a temporary file and renames it, so that a crash never leaves half a snapshot. */
  async function write(): Promise<void> {
    // After a failed start there are no tokens, and the snapshot of the previous process must not be overwritten.
    if (memory.table.count() === 0) return
    const partial = `${file}.partial`
    await rm(partial, { force: true })
    const handle = await open(partial, 'wx', 0o600)
    try {
      for (const bytes of packTokens(memory, now(), createChecksum(key))) {
        await handle.appendFile(bytes)
        await nextTurn()
      }
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(partial, file)
    await flushFolder(file)
  }
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

/** Creating, renaming or removing a file is durable only after its folder has been flushed. */
async function flushFolder(file: string): Promise<void> {
  const folder = await open(dirname(file), 'r')
  await folder.sync().finally(() => folder.close())
}
