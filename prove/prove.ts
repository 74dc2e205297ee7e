// npm run prove: tries to break every promise of the pair on every store, and writes the report.
import { readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { readArguments } from '../commands/arguments.ts'
import { createRandom } from '../tests/support/random.ts'
import { drive, type FaultResult } from './drive.ts'
import { type FaultKind, faultKinds } from './faults.ts'
import { whyNoHosts } from './hosts.ts'
import { checkFile, falseAdmissions, inWords, judge } from './judgement.ts'
import { networkFaults, splitFaults } from './network.ts'
import { faketime, type StoreName, storeNames, whyMissing } from './pair.ts'
import {
  isKeptOver,
  isKeptUnder,
  mostDataMs,
  mostRecoveryMs,
  type Promised,
  promisesOfSoak,
  promisesOfStorm,
} from './promises.ts'
import { chartOf, type Proof, reportOf, type Setting, settings } from './report.ts'
import { measureRestarts } from './restarts.ts'
import { soak } from './soak.ts'
import { measureStorm } from './storm.ts'
import { tryDefects } from './tryDefects.ts'
import { twoAuthFaults, unavailableInWords } from './twoAuths.ts'

const allParts = ['faults', 'network', 'restarts', 'storm', 'soak', 'defects']

const usage = `Usage: npm run prove -- [options]

Drives Auth and Business with twenty clients on each store under faults, checks the histories, counts the requests that
restarts lose, measures login storms, soaks, and writes docs/reliability.md. Takes two hours.

Exit codes: 1 if a promise is broken (the history is then kept), 3 if only a time limit was missed, which a busy machine can
explain, 2 if the options are wrong.

--short             10 s on each store, and nothing else; no report
--seconds N         time under faults on each store (900), plus a quarter of that with a changed clock, a quarter with two Auths,
                    and a quarter between hosts; with --parts network all of it between hosts
--soak-minutes N    time without faults (30); 0 skips it
--store a,b         only faults on these stores (${storeNames.join(', ')}); no report
--faults F1,F6      only these faults; no report
--parts a,b         only these parts (${allParts.join(', ')}); no report
--seed N            repeats a run; by default drawn at random and printed
--keep DIR          save all histories there, and the data of the report as proof.json
--report A,B        write the report from proof.json of A; results in B replace those of A
--check FILE        only check this history
--defects           plant defects in the services, and report whether the checker finds each of them
--help              show this`

const text = { type: 'string' } as const
const flag = { type: 'boolean' } as const
const options = readArguments(usage, {
  short: flag,
  defects: flag,
  seconds: text,
  'soak-minutes': { type: 'string', default: '30' },
  store: text,
  parts: text,
  faults: text,
  seed: text,
  keep: text,
  check: text,
  report: text,
})
// End the child processes together with this process.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1))
const seed = Number(options.seed ?? Math.floor(Math.random() * 1e6))
const beganMs = performance.now()
const untested: string[] = []
if (options.check !== undefined) {
  const violations = checkFile(options.check)
  for (const violation of violations) console.log(inWords(violation))
  end(violations.length, 0)
}
if (options.report !== undefined) {
  const [proof, ...later] = options.report.split(',').map(file => JSON.parse(readFileSync(file, 'utf8')) as Proof)
  writeReport(later.reduce(merged, proof as Proof))
  end(0, 0)
}
refuseUnknown('store', storeNames)
refuseUnknown('parts', allParts)
refuseUnknown('faults', [
  ...new Set([...faultKinds, ...twoAuthFaults, ...networkFaults, ...splitFaults].map(({ id }) => id)),
])
console.log(`seed ${seed}`)
const chosenStores = options.store?.split(',') ?? [...storeNames]
const chosen = (['store', 'faults', 'parts'] as const).filter(name => options[name] !== undefined)
const isPart = options.short === true || options.defects === true || chosen.length > 0
const usualParts = options.faults ? ['faults', 'network'] : isPart ? ['faults'] : allParts
const parts = options.defects ? ['defects'] : (options.parts?.split(',') ?? usualParts)
const seconds = Number(options.seconds ?? (options.short ? 10 : 900))
const isChosen = ({ id }: FaultKind) => options.faults?.split(',').includes(id) ?? true
/** The kinds of faults that are injected in each setting. */
const kinds: Record<Setting, FaultKind[]> = {
  plain: faultKinds.filter(kind => kind.id !== 'F11' && isChosen(kind)),
  clock: faultKinds.filter(kind => kind.id === 'F11' && isChosen(kind)),
  twoAuths: twoAuthFaults.filter(isChosen),
  hosts: networkFaults.filter(isChosen),
  split: splitFaults.filter(isChosen),
}
const proof: Proof = {
  date: new Date().toISOString().slice(0, 10),
  machine: `${availableParallelism()} cores (${cpus()[0]?.model ?? 'unknown'}), Node.js ${process.versions.node}, ${process.platform}`,
  command: [
    `npm run prove -- --seed ${seed} --seconds ${seconds}`,
    ...(parts.includes('soak') ? [`--soak-minutes ${options['soak-minutes']}`] : []),
    ...chosen.map(name => `--${name} ${options[name]}`),
  ].join(' '),
  seed,
  drives: [],
  restarts: [],
  storm: null,
  soak: null,
  defects: [],
  notTested: untested,
}
/** Broken promises. */
let broken = 0
/** Missed time limits. */
let late = 0

if (parts.includes('faults')) await driveOnAll()
if (parts.includes('network')) await driveOnHosts()
if (parts.includes('restarts')) {
  if (whyMissing('redis') !== null) notTested(`rolling restarts, because ${whyMissing('redis')}`)
  proof.restarts = await measureRestarts(5, what => tell(`restarts: ${what}`))
  done()
  for (const result of proof.restarts) {
    if (!isKeptOver(result))
      tellFound('the restarts', [`${result.what}: ${result.lost} lost, ${JSON.stringify(result.otherStatuses)}`])
  }
  save()
}
if (parts.includes('storm')) {
  proof.storm = await measureStorm(5, 5, what => tell(`storm: ${what}`))
  done()
  tellLate('the storm', notKept(promisesOfStorm(proof.storm)))
  save()
}
const minutes = Number(options['soak-minutes'])
if (parts.includes('soak') && minutes > 0) {
  const result = await soak('memory', minutes, seed, what => tell(`soak: ${what}`))
  done()
  const judgement = judge(result.drive.lines, 'soak', options.keep ?? null)
  proof.soak = { result, judgement }
  result.drive.lines = []
  const problems = [...judgement.violations.map(inWords), ...result.drive.problems]
  tellFound('the soak', [...problems, ...notKept(promisesOfSoak(result))], judgement.file)
  save()
}
if (parts.includes('defects')) {
  proof.defects = await tryDefects(seed, what => tell(`defect ${what}`), notTested)
  done()
  for (const { name, storeName, rule, violations } of proof.defects) {
    console.log(`${violations > 0 ? 'found' : 'NOT FOUND'}  ${name} (${storeName}:) ${rule}, ${violations}`)
  }
  broken += proof.defects.filter(({ violations }) => violations === 0).length
  save()
}
if (!isPart) writeReport(proof)
end(broken, late)

async function driveOnAll(): Promise<void> {
  for (const storeName of storeNames.filter(name => chosenStores.includes(name))) {
    const missing = whyMissing(storeName)
    if (missing !== null) {
      notTested(`${storeName}:, because ${missing}`)
      continue
    }
    if (kinds.plain.length > 0) await driveOn(storeName, seconds, 'plain')
    if (kinds.clock.length > 0) {
      if (faketime === undefined) notTested(`F11 on ${storeName}:, because libfaketime is not installed`)
      else if (!options.short) await driveOn(storeName, seconds / 4, 'clock')
    }
    const canShare = kinds.twoAuths.some(({ stores }) => stores.includes(storeName))
    if (canShare && !options.short) await driveOn(storeName, seconds / 4, 'twoAuths')
    save()
  }
}

async function driveOnHosts(): Promise<void> {
  const isUsed = (storeName: StoreName, setting: Setting) =>
    chosenStores.includes(storeName) && kinds[setting].some(({ stores }) => stores.includes(storeName))
  const drives = storeNames.flatMap(storeName =>
    (['hosts', 'split'] as const)
      .filter(setting => isUsed(storeName, setting))
      .map(setting => ({ storeName, setting })),
  )
  if (drives.length === 0) return
  const noHosts = whyNoHosts()
  if (noHosts !== null) return notTested(`networks that lose packets (F26, F27), because ${noHosts}`)
  const isAlone = !parts.includes('faults') || kinds.plain.length === 0
  for (const { storeName, setting } of drives) {
    const missing = whyMissing(storeName)
    if (missing === null) await driveOn(storeName, isAlone ? seconds : seconds / 4, setting)
    else notTested(`networks that lose packets (F26, F27) on ${storeName}${settings[setting]}, because ${missing}`)
    save()
  }
}

async function driveOn(storeName: StoreName, seconds: number, setting: Setting): Promise<void> {
  const name = `${storeName}${settings[setting]}`
  const result = await drive({
    storeName,
    seed,
    random: createRandom(seed).stream(name),
    seconds,
    kinds: kinds[setting],
    fakeClock: setting === 'clock',
    twoAuths: setting === 'twoAuths',
    onHosts: setting === 'hosts' || setting === 'split',
    onCluster: setting === 'split',
    atLeastOnce: !options.short,
    tell: what => tell(`${name}: ${what}`),
  })
  done()
  const judgement = judge(result.lines, name.replaceAll(/\W+/g, '-'), options.keep ?? null)
  const admissions = falseAdmissions(result, judgement.violations)
  proof.drives.push({ result: { ...result, lines: [] }, judgement, setting, admissions })
  const { operations, faults, problems, skipped } = result
  console.log(`${name}: ${operations} operations, ${faults.length} faults, ${judgement.violations.length} violations`)
  for (const reason of skipped) console.log(`  not injected: ${reason}`)
  for (const { what } of kinds[setting].filter(({ maxUnavailableMs }) => maxUnavailableMs !== undefined)) {
    const all = faults.filter(({ kind }) => kind.what === what)
    console.log(`  ${what}, ${all.length} times: the last 503 after ${unavailableInWords(all)} (p50 · max)`)
  }
  const slow = faults.filter(fault => !isKeptUnder(fault)).map(inFigures)
  tellFound(name, [...judgement.violations.map(inWords), ...problems], judgement.file)
  tellLate(name, slow)
}

function inFigures({ kind, recoveryMs, slowestDataMs, unavailableMs }: FaultResult): string {
  const unavailable =
    kind.maxUnavailableMs === undefined
      ? ''
      : `, last 503 after ${unavailableMs.toFixed(0)} ms (at most ${kind.maxUnavailableMs})`
  return `${kind.what}: recovery after ${recoveryMs?.toFixed(0)} ms (at most ${mostRecoveryMs}), slowest /data ${slowestDataMs.toFixed(0)} ms (at most ${mostDataMs})${unavailable}`
}

function notKept(promises: Promised[]): string[] {
  return promises.filter(({ isKept }) => !isKept).map(({ promise, found }) => `${promise}: ${found}`)
}

function notTested(what: string): void {
  untested.push(what)
  console.log(`not tested: ${what}`)
}

/** Saves the results so far, for --report. */
function save(): void {
  if (options.keep) writeFileSync(`${options.keep}/proof.json`, JSON.stringify(proof))
}

/** Replaces results with the results of a later run, and adds those that are new. */
function merged(proof: Proof, later: Proof): Proof {
  const isSame = (a: Proof['drives'][0], b: Proof['drives'][0]) =>
    a.result.storeName === b.result.storeName && a.setting === b.setting
  const kept = proof.drives.map(drive => later.drives.find(other => isSame(drive, other)) ?? drive)
  const added = later.drives.filter(drive => !proof.drives.some(other => isSame(drive, other)))
  return {
    ...proof,
    drives: [...kept, ...added],
    restarts: later.restarts.length > 0 ? later.restarts : proof.restarts,
    storm: later.storm ?? proof.storm,
    soak: later.soak ?? proof.soak,
    defects: later.defects.length > 0 ? later.defects : proof.defects,
    notTested: [...new Set([...proof.notTested, ...later.notTested])],
    command: `${proof.command}\n${later.command}`,
  }
}

function writeReport(proof: Proof): void {
  writeFileSync('docs/reliability.md', reportOf(proof))
  if (proof.soak) writeFileSync('docs/reliability.svg', chartOf(proof.soak.result, `${proof.machine}, ${proof.date}`))
  console.log('Wrote docs/reliability.md.')
}

function tellFound(name: string, problems: string[], file: string | null = null): void {
  broken += problems.length
  for (const problem of problems.slice(0, 20)) console.log(`  ${problem}`)
  if (problems.length > 0)
    console.log(`  ${problems.length} in ${name}; the history is ${file ?? 'not kept, because it breaks no rule'}`)
}

/** Reports missed time limits. */
function tellLate(name: string, limits: string[]): void {
  late += limits.length
  for (const limit of limits.slice(0, 20)) console.log(`  ${limit}`)
  if (limits.length > 0) console.log(`  ${limits.length} time limits missed in ${name}`)
}

function tell(what: string): void {
  const passed = `${Math.round((performance.now() - beganMs) / 1000)} s`
  if (process.stderr.isTTY) process.stderr.write(`\r${passed} ${what}\x1b[K`)
  else if (!what.includes('minutes')) console.error(`${passed} ${what}`)
}

function done(): void {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
}

function end(broken: number, late: number): never {
  const rest = untested.length === 0 ? '' : ` Not tested: ${untested.join('; ')}.`
  const limits = late === 0 ? '' : ` ${late} time limits were missed.`
  console.log(`${broken === 0 ? 'No promise was broken.' : `${broken} problems found.`}${limits}${rest}`)
  process.exit(broken > 0 ? 1 : late > 0 ? 3 : 0)
}

function refuseUnknown(option: 'store' | 'parts' | 'faults', known: readonly string[]): void {
  const unknown = (options[option]?.split(',') ?? []).filter(name => !known.includes(name))
  if (unknown.length === 0) return
  console.error(`--${option}: expected one or more of ${known.join(', ')}; got ${unknown.join(', ')}`)
  process.exit(2)
}
