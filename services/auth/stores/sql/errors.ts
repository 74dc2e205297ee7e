// The errors of both drivers: which of them deserve another attempt, and the messages for the operator.

/** `code` is PostgreSQL's SQLSTATE or a system error code, `errcode` is SQLite's. */
export type DriverError = Error & { code?: string; errcode?: number; syscall?: string }

/** Thrown if a database has migrations that this version does not know. */
export class UnknownMigrationError extends Error {}

/** A file that we failed to create counts as one that SQLite could not open (14). */
const sqliteCode = ({ errcode = 0, syscall }: DriverError): number => (syscall === 'open' ? 14 : errcode & 0xff)

/** SQLite: busy or locked. PostgreSQL: deadlock or serialization failure. In all four cases nothing was done. */
export function isWorthRetrying(error: DriverError): boolean {
  return [5, 6].includes(sqliteCode(error)) || ['40P01', '40001'].includes(error.code ?? '')
}

/** Null if another transaction in PostgreSQL has held a lock for longer than `lock_timeout`; nothing was done then. */
export async function unlessLocked<T>(work: Promise<T>): Promise<T | null> {
  try {
    return await work
  } catch (error) {
    if ((error as DriverError).code === '55P03') return null
    throw error
  }
}

/** A row with this value of a unique column exists. Nothing was done. */
export const isDuplicate = ({ code, errcode }: DriverError): boolean => code === '23505' || errcode === 2067

const sqliteMessages: Record<number, string> = {
  5: 'is locked by another process',
  8: 'is read-only for this user',
  11: 'is damaged; nothing was changed: restore a backup',
  13: 'cannot grow: the disk is full',
  14: 'cannot be opened: does its folder exist, and may this user write to it?',
  26: 'is not a SQLite database; nothing was changed',
}

const postgresMessages: Record<string, string> = {
  '28000': 'refuses this user, or a connection without TLS',
  '28P01': 'refuses this user or its password',
  '3D000': 'does not exist',
  '42501': 'does not allow this user to create or use its tables',
  '25006': 'is read-only',
  '53100': 'has no space left on its disk',
  '53300': 'accepts no more connections',
  '57P03': 'is starting or stopping; try again',
}

/** The message for the operator about the SQLite file at `path`. */
export function fileProblem(path: string, error: DriverError): string {
  return problem(`the file ${path}`, 'used', error, sqliteMessages[sqliteCode(error)])
}

/** The message for the operator about a PostgreSQL database. It omits the URL, which may contain a password. */
export function databaseProblem(url: string, error: DriverError): string {
  return problem(`the database ${placeOf(url)}`, 'reached', error, postgresMessages[error.code ?? ''])
}

export interface CommitSettings {
  /** `synchronous_commit` */
  level: string
  /** `synchronous_standby_names` */
  standbys: string
}

/** What the operator should know about how the database commits; null if nothing. */
export function commitProblem(url: string, { level, standbys }: CommitSettings): string | null {
  const what = `the database ${placeOf(url)} has synchronous_commit = ${level}`
  const lost = 'log-outs, revocations and password changes that were already acknowledged'
  if (level === 'off') return `${what}: if it crashes, it may undo ${lost}; set it to on`
  if (level === 'local' && standbys !== '') return `${what}: a promoted standby may lack ${lost}; set it to on`
  return null
}

function problem(subject: string, verb: string, error: DriverError, known: string | undefined): string {
  if (error instanceof UnknownMigrationError)
    return `${subject} was created by a newer Latchkey; use that version or a later one`
  if (known !== undefined) return `${subject} ${known}`
  const why = error.code === undefined || error.code === 'ERR_SQLITE_ERROR' ? error.message : error.code
  return `${subject} cannot be ${verb} (${why})`
}

function placeOf(url: string): string {
  if (!URL.canParse(url)) return 'of this URL'
  const { hostname, port, pathname } = new URL(url)
  return `${pathname.slice(1) || '(default)'} at ${hostname || 'localhost'}:${port || 5432}`
}
