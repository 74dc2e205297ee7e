// Records one history: the pair on one store, twenty clients, and one fault after another. Hides when faults begin and how
// their cost is measured.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Random } from '../tests/support/random.ts'
import { type ClientsOptions, createClients } from './clients.ts'
import { type FaultKind, faultKinds } from './faults.ts'
import { type Footprint, footprintOf } from './footprint.ts'
import type { Operation } from './history.ts'
import { absoluteTtlSeconds, type Pair, type PairOptions, type StoreName, startPair, ttlSeconds } from './pair.ts'
import { createRecorder, type Recorder, type Refusal } from './recorder.ts'

export interface DriveOptions extends Omit<PairOptions, 'storeName'>, ClientsOptions {
  storeName: StoreName
  random: Random
  seed: number
  /** Faults are injected for this long, in an order that is drawn again whenever all kinds have been injected. */
  seconds: number
  /** Continues beyond `seconds` until each kind has been injected once. */
  atLeastOnce?: boolean
  /** Stops after each kind has been injected this many times. */
  rounds?: number
  /** All kinds by default. */
  kinds?: FaultKind[]
  /** The shortest and the longest time between the recovery from a fault and the next fault. */
  calmMs?: readonly [number, number]
  /** If absent, no footprint is measured. */
  footprintEveryMs?: number
  /** Receives progress messages. */
  tell?: (what: string) => void
}

/** The cost of one fault. */
export interface FaultResult {
  kind: FaultKind
  storeName: StoreName
  beginMs: number
  endMs: number
  /** How long it took to end the fault, such as the restart of a process. */
  takingBackMs: number
  /** Measured from the end of the fault; null if the pair did not recover while the driver waited. */
  recoveryMs: number | null
  /** Counts the answers to /data from the beginning of the fault to the recovery. */
  dataByStatus: Record<string, number>
  slowestDataMs: number
  /**
   * The time from the beginning of the fault to the end of the last `/data` that was 503; 0 if none was. Not counted if the machine
   * stood still: the first Auth, which is called directly, took half a deadline to read something at the same time.
   */
  unavailableMs: number
  /** Requests that were accepted but never answered. */
  unanswered: number
}

export interface DriveResult {
  storeName: StoreName
  lines: string[]
  operations: number
  seconds: number
  faults: FaultResult[]
  /** Problems that no fault explains. */
  problems: string[]
  skipped: string[]
  footprints: Footprint[]
}

const recoveryWithinMs = 30_000
const inARow = 20
const dataInARow = 5 // while Business waits for Auth in vain, twenty others may be answered
const stallMs = 500
const settlingMs = 2000 // for work that a store or Auth has in progress; the longest deadline of either is one second

export async function drive(given: DriveOptions): Promise<DriveResult> {
  const options = { ...given, twoBusinesses: given.onHosts !== true }
  const { storeName, random, seed, seconds, kinds = faultKinds, tell = () => {} } = options
  tell('starting')
  const pair = await startPair(options)
  const recorder = createRecorder(listener => addressOf(pair, listener))
  const clients = createClients(recorder, random.stream('clients'), options)
  const skipped: string[] = []
  const problems: string[] = []
  const faults: FaultResult[] = []
  const footprints: Footprint[] = []
  let measuring: NodeJS.Timeout | undefined
  const refusals: Refusal[] = []
  recorder.listen(operation => 'refusedBy' in operation && refusals.push(operation))
  try {
    await clients.begin()
    clients.run()
    if (options.footprintEveryMs !== undefined) measuring = setInterval(measure, options.footprintEveryMs)
    await inject()
    await clients.stop()
  } catch (error) {
    problems.push((error as Error).message)
    await clients.stop().catch(() => {})
  } finally {
    clearInterval(measuring)
    problems.push(...pair.complaints())
    recorder.close()
    await pair.close()
  }
  const header = {
    seed,
    store: `${storeName}:`,
    tokenTtlMs: ttlSeconds * 1000,
    tokenAbsoluteTtlMs: absoluteTtlSeconds * 1000,
    tokenLimitPerUser: 1000,
    toleranceMs: 60,
  }
  const { operations } = recorder
  for (const { refusedBy, beginMs } of refusals) {
    const isExpected = ({ kind, ...fault }: FaultResult) =>
      kind.refuses?.includes(refusedBy) && fault.beginMs <= beginMs && beginMs <= fault.endMs
    if (!faults.some(isExpected)) problems.push(`${refusedBy} took no connection at ${Math.round(beginMs)} ms`)
  }
  for (const fault of faults) Object.assign(fault, costOf(fault, operations))
  return {
    storeName,
    lines: recorder.lines(header),
    operations: operations.length,
    seconds: recorder.nowMs() / 1000,
    faults,
    problems,
    skipped,
    footprints,
  }

  async function measure(): Promise<void> {
    const footprint = await footprintOf(pair, recorder.nowMs() / 1000)
    if (footprint) footprints.push(footprint)
  }

  async function inject(): Promise<void> {
    const dice = random.stream('faults')
    const usable = kinds.filter(kind => {
      if (!kind.stores.includes(storeName)) return false
      const reason = kind.whyNot?.(pair) ?? null
      if (reason !== null) skipped.push(`${kind.what}: ${reason}`)
      return reason === null
    })
    const calmMs = options.calmMs ?? [1000, 2500]
    const until = recorder.nowMs() + seconds * 1000
    const order: FaultKind[] = []
    for (let round = 0; ; ) {
      tell('calm')
      await sleep(dice.between(...calmMs))
      if (order.length === 0) {
        if (round++ === (options.rounds ?? Infinity)) return
        order.push(...dice.shuffle(usable))
      }
      if (recorder.nowMs() > until && !(options.atLeastOnce && round === 1)) return
      const kind = order.shift()
      if (kind) faults.push(await suffer(kind, dice))
    }
  }

  async function suffer(kind: FaultKind, dice: Random): Promise<FaultResult> {
    tell(`${kind.id} ${kind.what}`)
    const beginMs = recorder.nowMs()
    await kind.begin(pair, dice)
    await sleep(dice.between(...kind.lastsMs))
    const endingMs = recorder.nowMs()
    const recovered = recovery(recorder, endingMs)
    await kind.end(pair)
    const endMs = recorder.nowMs()
    const recoveredMs = await recovered
    if (recoveredMs !== null)
      recorder.settle(recoveredMs, Math.max(endMs, recoveredMs) + (kind.settlesInMs ?? settlingMs))
    recorder.recordFault({
      fault: kind.id,
      what: kind.what,
      beginMs,
      endMs,
      recoveredMs: recoveredMs === null ? null : Math.max(endMs, recoveredMs),
      losesTokens: kind.losesTokens?.(storeName) ?? false,
      losesUsers: false,
      disconnects: kind.disconnects ?? [],
      clockShiftMs: kind.clockShiftMs ?? 0,
    })
    if (recoveredMs === null) problems.push(`${kind.what}: no recovery within ${recoveryWithinMs / 1000} s`)
    const recoveryMs = recoveredMs === null ? null : Math.max(0, recoveredMs - endMs)
    const took = { takingBackMs: endMs - endingMs, recoveryMs }
    return {
      kind,
      storeName,
      beginMs,
      endMs,
      ...took,
      dataByStatus: {},
      slowestDataMs: 0,
      unavailableMs: 0,
      unanswered: 0,
    }
  }
}

function addressOf({ auth, business, otherBusiness }: Pair, listener: string): string {
  if (listener === 'business-2') return `${otherBusiness?.addresses['business']}`
  return `${listener === 'business' ? business.addresses[listener] : auth.addresses[listener]}`
}

/**
 * Waits for `inARow` consecutive operations, of any kind and client, that began after `sinceMs` and were answered without a
 * 5xx; `dataInARow` of them or more must be `/data`. Resolves to the end of the first `/data` of them, or to null if there are none
 * in time.
 */
function recovery(recorder: Recorder, sinceMs: number): Promise<number | null> {
  return new Promise(resolve => {
    let row: Operation[] = []
    const stop = recorder.listen(operation => {
      if ('refusedBy' in operation) row = []
      else if (operation.beginMs >= sinceMs) {
        if (operation.status === null || operation.status >= 500) row = []
        else row.push(operation)
      }
      const data = row.filter(({ op }) => op === 'data')
      if (row.length >= inARow && data.length >= dataInARow) done(data[0]?.endMs ?? null)
    })
    const timer = setTimeout(() => done(null), recoveryWithinMs)
    function done(at: number | null): void {
      clearTimeout(timer)
      stop()
      resolve(at)
    }
  })
}

function costOf({ beginMs, endMs, recoveryMs }: FaultResult, operations: Operation[]): Partial<FaultResult> {
  const overMs = endMs + (recoveryMs ?? recoveryWithinMs)
  const during = operations.filter(operation => operation.endMs >= beginMs && operation.beginMs <= overMs)
  const data = during.filter(({ op }) => op === 'data')
  const stalls = during.filter(operation => isRead(operation) && operation.endMs - operation.beginMs >= stallMs)
  const dataByStatus: Record<string, number> = {}
  for (const { status } of data) dataByStatus[`${status}`] = (dataByStatus[`${status}`] ?? 0) + 1
  return {
    dataByStatus,
    unavailableMs: Math.max(
      0,
      ...data
        .filter(({ status, ...times }) => status === 503 && !stalls.some(stall => overlap(stall, times)))
        .map(operation => operation.endMs - beginMs),
    ),
    slowestDataMs: Math.max(0, ...data.map(operation => operation.endMs - operation.beginMs)),
    unanswered: during.filter(({ status }) => status === null).length,
  }
}

/** Whether it asks the first Auth for something that waits for no lock of another Auth. */
const isRead = (operation: Operation) => operation.op === 'list' || (operation.op === 'validate' && !operation.touch)

type Times = Pick<Operation, 'beginMs' | 'endMs'>

const overlap = (one: Times, other: Times) => one.beginMs <= other.endMs && other.beginMs <= one.endMs
