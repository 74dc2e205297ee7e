// What a history is worth: the checker's verdict on it, and which fault a violation belongs to. Hides where refuted
// histories are kept.
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checkHistory, type Rule, type Violation } from './checker.ts'
import type { DriveResult } from './drive.ts'
import { readHistory } from './history.ts'

export interface Judgement {
  violations: Violation[]
  /** Where the history is; null where it was not kept. */
  file: string | null
}

/** Somebody was let in who must not be. */
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
]

/** A history that is refuted is kept in any case. */
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

/** For each fault: how many were let in while it lasted or after it, until the next one. */
export function falseAdmissions({ lines, faults }: DriveResult, violations: Violation[]): number[] {
  const begins = new Map(readHistory(lines).operations.map(({ id, beginMs }) => [id, beginMs]))
  const admissions = violations.filter(({ rule }) => admitting.includes(rule))
  const instants = admissions.map(({ ids }) => Math.max(...ids.map(id => begins.get(id) ?? 0)))
  return faults.map(
    (fault, i) => instants.filter(at => at >= fault.beginMs && at < (faults[i + 1]?.beginMs ?? Infinity)).length,
  )
}

export const inWords = ({ rule, sentence, ids }: Violation) => `${rule}: ${sentence} (lines ${ids.join(', ')})`
