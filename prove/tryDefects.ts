// Plants one defect after another, drives the services for some seconds, and reports whether the checker finds it.
import { createRandom } from '../tests/support/random.ts'
import { checkHistory, type Rule } from './checker.ts'
import { type Defect, defects } from './defects.ts'
import { drive } from './drive.ts'
import { faultKinds } from './faults.ts'
import { readHistory } from './history.ts'
import { type StoreName, whyMissing } from './pair.ts'

export interface TriedDefect {
  name: string
  storeName: StoreName
  rule: Rule
  /** How often the checker found this rule broken; 0 means that it missed the defect. */
  violations: number
}

/** Tries the defects of every store that is installed. */
export async function tryDefects(seed: number, tell: (what: string) => void): Promise<TriedDefect[]> {
  // A checker that refutes sound services would find every defect.
  if ((await brokenRules(null, seed)).length > 0)
    throw new Error('The history of the services without a defect is refuted.')
  const usable = defects.filter(({ storeName }) => whyMissing(storeName) === null)
  const results: TriedDefect[] = []
  for (const [i, defect] of usable.entries()) {
    const { name, rule, storeName } = defect
    tell(`${i + 1}/${usable.length} ${name}`)
    const rules = await brokenRules(defect, seed)
    results.push({ name, storeName, rule, violations: rules.filter(broken => broken === rule).length })
  }
  return results
}

/** The rules that the checker finds broken when the services run with this defect, once per violation. */
export async function brokenRules(defect: Defect | null, seed: number, calmMs = 6000): Promise<Rule[]> {
  const { storeName = 'memory', fault } = defect ?? {}
  const kinds = faultKinds.filter(({ what }) => fault !== undefined && what.startsWith(fault))
  const result = await drive({
    storeName,
    defect,
    seed,
    random: createRandom(seed),
    kinds,
    seconds: 60,
    rounds: fault === undefined ? 0 : 1,
    calmMs: [calmMs, calmMs],
    userCount: 10,
    fakeClock: fault?.includes('clock') ?? false,
  })
  if (result.operations < 100) throw new Error(`only ${result.operations} operations: ${result.problems}`)
  return checkHistory(readHistory(result.lines)).map(({ rule }) => rule)
}
