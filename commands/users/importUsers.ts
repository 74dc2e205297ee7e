// Imports the rows of an htpasswd file into the user store. Hides what makes a row invalid, and how many rows are stored at
// a time.
import { describeChoice } from '../../services/auth/routes/choiceProblems.ts'
import { isBcryptHash } from '../../services/auth/users/passwords.ts'
import { normalise } from '../../services/auth/users/usernames.ts'
import type { Users } from '../../services/auth/users/users.ts'
import { decodeLine, type Problem, readLines } from '../lines.ts'

export interface ImportOptions {
  input: AsyncIterable<Buffer>
  users: Users
  /** Reads from the store but writes nothing. */
  dryRun: boolean
  /**
   * Called for each refused row. `problem` never quotes the row: the columns may be swapped, so any column may hold a
   * password.
   */
  onProblem: (line: number, problem: string) => void
  /** Called after each row. */
  onProgress: (rows: number) => void
  /** Once it is aborted no further row is stored, but the rows under way are completed. */
  signal: AbortSignal
}

export interface ImportCounts {
  imported: number
  /** Users that already have the same hash, for example from an interrupted import. */
  present: number
  refused: number
  /** Every line up to this one has been handled. */
  line: number
}

type Row = { username: string; passwordHash: string }
type Outcome = 'imported' | 'present' | Problem

const rowsAtATime = 16 // stored within the deadline of the store, although SQLite writes one row after another

/** Updates `counts` as it goes, so they are right even if the import rejects because of `signal`, the store, or `input`. */
export async function importUsers(options: ImportOptions, counts: ImportCounts): Promise<void> {
  const { input, users, dryRun, onProblem, onProgress, signal } = options
  const lineOf = new Map<string, number>()
  let batch: { line: number; row: Row | Problem }[] = []
  let line = 0

  for await (const bytes of readLines(input)) {
    line++
    const row = readRow(bytes)
    if (row !== null) batch.push({ line, row: 'problem' in row ? row : (findProblem(row) ?? row) })
    if (batch.length === rowsAtATime) await finishBatch()
  }
  await finishBatch()

  /** Checks that need no store. Must be called in the order of the lines. */
  function findProblem(row: Row): Problem | null {
    const choice = users.problemWithUsername(row.username)
    if (choice !== null) return { problem: `username: ${describeChoice(choice)}` }
    // Copy it: a substring would keep the longer text in memory.
    const username = Buffer.from(normalise(row.username)).toString()
    const earlier = lineOf.get(username)
    if (earlier !== undefined) return { problem: `the same username as in line ${earlier}` }
    lineOf.set(username, line)
    return null
  }

  async function store(row: Row | Problem): Promise<Outcome> {
    if ('problem' in row) return row
    if (!dryRun && (await users.insert(row)) !== null) return 'imported'
    const user = await users.findByUsername(row.username)
    if (user === null) return dryRun ? 'imported' : { problem: 'the username is taken by a user who is being deleted' }
    return user.passwordHash === row.passwordHash ? 'present' : { problem: 'the username is taken' }
  }

  async function finishBatch(): Promise<void> {
    signal.throwIfAborted()
    const settled = await Promise.allSettled(batch.map(({ row }) => store(row)))
    for (const [index, result] of settled.entries()) {
      if (result.status === 'rejected') throw result.reason
      const { value: outcome } = result
      counts.line = batch[index]?.line as number
      if (typeof outcome === 'string') {
        counts[outcome]++
      } else {
        counts.refused++
        onProblem(counts.line, outcome.problem)
      }
      onProgress(counts.imported + counts.present + counts.refused)
    }
    counts.line = line
    batch = []
  }
}

/** Null for a blank line or a comment. */
function readRow(line: Buffer): Row | Problem | null {
  const decoded = decodeLine(line)
  if (typeof decoded === 'object') return decoded
  const text = decoded.trimEnd()
  if (text === '' || text.startsWith('#')) return null
  const colon = text.lastIndexOf(':')
  if (colon < 0) return { problem: 'expected username:hash' }
  const passwordHash = text.slice(colon + 1)
  if (!isBcryptHash(passwordHash)) return { problem: 'expected a bcrypt hash after the last colon' }
  return { username: text.slice(0, colon), passwordHash }
}
