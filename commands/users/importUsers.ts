// Users from an htpasswd file into the user store, row by row. Hides how lines are cut out of bytes, what is wrong with a
// row, and how many are on their way at a time.
import { describeChoice } from '../../services/auth/routes/choiceProblems.ts'
import { isBcryptHash } from '../../services/auth/users/passwords.ts'
import { normalise } from '../../services/auth/users/usernames.ts'
import type { Users } from '../../services/auth/users/users.ts'

export interface ImportOptions {
  input: AsyncIterable<Buffer>
  users: Users
  /** Asks the store and writes nothing. */
  dryRun: boolean
  /** A row that was refused. Never holds what is in it: people take the columns for one another. */
  tellProblem: (line: number, problem: string) => void
  /** After every row. */
  tellProgress: (rows: number) => void
  /** No row is begun after it aborts; those that are on their way are waited for. */
  signal: AbortSignal
}

export interface ImportCounts {
  imported: number
  /** With the same hash: by an import that was interrupted. */
  present: number
  refused: number
  /** All lines up to this one are done. */
  line: number
}

type Row = { username: string; passwordHash: string }
type Problem = { problem: string }
type Outcome = 'imported' | 'present' | Problem

const rowsAtATime = 16 // each has to be stored within the deadline of the store, and SQLite writes one after the other
const longestLine = 4096 // bytes; a username of 256 characters and a hash are far below
const lineFeed = 10
const utf8 = new TextDecoder('utf-8', { fatal: true })

/** Adds to `counts` as it goes: they hold also where it rejects, because of `signal`, the store, or `input`. */
export async function importUsers(options: ImportOptions, counts: ImportCounts): Promise<void> {
  const { input, users, dryRun, tellProblem, tellProgress, signal } = options
  const lineOf = new Map<string, number>()
  let batch: { line: number; row: Row | Problem }[] = []
  let line = 0

  for await (const bytes of readLines(input)) {
    line++
    const row = readRow(bytes)
    if (row !== null) batch.push({ line, row: 'problem' in row ? row : (whyNot(row) ?? row) })
    if (batch.length === rowsAtATime) await finishBatch()
  }
  await finishBatch()

  /** What can be said without the store, in the order of the lines. */
  function whyNot(row: Row): Problem | null {
    const choice = users.problemWithUsername(row.username)
    if (choice !== null) return { problem: `username: ${describeChoice(choice)}` }
    // A copy: a part of a longer text would keep that in memory.
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
        tellProblem(counts.line, outcome.problem)
      }
      tellProgress(counts.imported + counts.present + counts.refused)
    }
    counts.line = line
    batch = []
  }
}

/** The lines without their ends, cut off where they are longer than any line may be: memory stays bounded. */
export async function* readLines(input: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0)
  const extendedBy = (more: Buffer) => Buffer.concat([rest, more.subarray(0, longestLine + 1 - rest.length)])
  for await (const chunk of input) {
    let from = 0
    for (let to = chunk.indexOf(lineFeed); to >= 0; to = chunk.indexOf(lineFeed, from)) {
      yield extendedBy(chunk.subarray(from, to))
      rest = Buffer.alloc(0)
      from = to + 1
    }
    rest = extendedBy(chunk.subarray(from))
  }
  if (rest.length > 0) yield rest
}

/** A carriage return before the line feed is none of it. */
export function textOf(line: Buffer): string | Problem {
  if (line.length > longestLine) return { problem: `longer than ${longestLine} bytes` }
  try {
    return utf8.decode(line).replace(/\r$/, '')
  } catch {
    return { problem: 'not UTF-8' }
  }
}

/** Null for a line that is blank or a comment. */
function readRow(line: Buffer): Row | Problem | null {
  const decoded = textOf(line)
  if (typeof decoded === 'object') return decoded
  const text = decoded.trimEnd()
  if (text === '' || text.startsWith('#')) return null
  const colon = text.lastIndexOf(':')
  if (colon < 0) return { problem: 'expected username:hash' }
  const passwordHash = text.slice(colon + 1)
  if (!isBcryptHash(passwordHash)) return { problem: 'expected a bcrypt hash behind the last colon' }
  return { username: text.slice(0, colon), passwordHash }
}
