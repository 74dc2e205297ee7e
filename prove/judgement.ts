// Applies the checker to a history and assigns violations to faults. Hides where refuted histories are kept.
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checkHistory, type Rule, type Violation } from './checker.ts'
import type { DriveResult } from './drive.ts'
import { readHistory } from './history.ts'

export interface Judgement {
  violations: Violation[]
  /** The file of the history; null if it was not kept. */
  file: string | null
}

/** Rules whose violation means that a request was admitted although it must be refused. */
const admitting: Rule[] = [
  'ended token',
  'dead token',
  'revived',
  'single use',
  'wrong purpose',
  'wrong owner',
  'never issued',
  'old password',
  'password never set',
  'stale authority',
  'limit exceeded',
  'outlived parent',
]

/** Always keeps the file of a refuted history. */
export function judge(lines: string[], name: string, keepIn: string | null = null): Judgement {
  const violations = checkHistory(readHistory(lines))
  if (violations.length === 0 && keepIn === null) return { violations, file: null }
  const folder = keepIn ?? mkdtempSync(join(tmpdir(), 'latchkey-refuted-'))
  mkdirSync(folder, { recursive: true })
  const file = join(folder, `${name}.jsonl`)
  writeFileSync(file, `${lines.join('\n')}\n`)
  return { violations, file }
}

export function checkFile(file: string): Violation[] {
  return checkHistory(readHistory(readFileSync(file, 'utf8').split('\n')))
}

/** Returns, for each fault, how many requests were wrongly admitted from its beginning until the next fault. */
export function falseAdmissions({ lines, faults }: DriveResult, violations: Violation[]): number[] {
  const begins = new Map(readHistory(lines).operations.map(({ id, beginMs }) => [id, beginMs]))
  const admissions = violations.filter(({ rule }) => admitting.includes(rule))
  const instants = admissions.map(({ ids }) => Math.max(...ids.map(id => begins.get(id) ?? 0)))
  return faults.map(
    (fault, i) => instants.filter(at => at >= fault.beginMs && at < (faults[i + 1]?.beginMs ?? Infinity)).length,
  )
}

export const inWords = ({ rule, sentence, ids }: Violation) => `${rule}: ${sentence} (lines ${ids.join(', ')})`
