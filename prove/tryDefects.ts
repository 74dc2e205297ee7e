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

const maxAttempts = 5 // some operations are rare, so a short history may lack the one operation that shows the defect

/** Tries every defect; calls `notTested` for each defect that this machine cannot run. */
export async function tryDefects(
  seed: number,
  tell: (what: string) => void,
  notTested: (what: string) => void,
): Promise<TriedDefect[]> {
  // A checker that refutes sound services would find every defect.
  const sound = await driveWith(null, seed)
  if (sound.rules.length > 0) throw new Error(`the checker finds broken rules without a defect: ${sound.rules}`)
  const results: TriedDefect[] = []
  for (const [i, defect] of defects.entries()) {
    const { name, rule, storeName } = defect
    tell(`${i + 1}/${defects.length} ${name}`)
    let missing = whyMissing(storeName)
    let violations = 0
    for (let attempt = 0; missing === null && violations === 0 && attempt < maxAttempts; attempt++) {
      const { rules, skipped } = await driveWith(defect, seed + attempt)
      missing = skipped[0] ?? null
      violations = rules.filter(broken => broken === rule).length
    }
    if (missing === null) results.push({ name, storeName, rule, violations })
    else notTested(`the defect “${name}”: ${missing}`)
  }
  return results
}

/**
 * Drives the services with this defect. `rules` are the rules that the checker finds broken, once per violation; `skipped` says why
 * the fault of the defect could not be injected.
 */
export async function driveWith(
  defect: Defect | null,
  seed: number,
  calmMs = 6000,
): Promise<{ rules: Rule[]; skipped: string[] }> {
  const { storeName = 'memory', fault } = defect ?? {}
  const { lines, operations, problems, skipped } = await drive({
    storeName,
    defect,
    seed,
    random: createRandom(seed),
    kinds: faultKinds.filter(({ what }) => fault !== undefined && what.startsWith(fault)),
    seconds: 60,
    rounds: fault === undefined ? 0 : 1,
    calmMs: [calmMs, calmMs],
    userCount: 10,
    fakeClock: fault?.includes('clock') ?? false,
  })
  if (operations < 100) throw new Error(`The services ran only ${operations} operations: ${problems}`)
  return { rules: checkHistory(readHistory(lines)).map(({ rule }) => rule), skipped }
}
