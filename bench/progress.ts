// Shows on stderr what a benchmark is doing and how long it still takes: one changing line with a bar on a terminal, otherwise a
// line per step. Also the only place that writes bench/results/.
import { mkdirSync, writeFileSync } from 'node:fs'
import { progressBar } from '../commands/progressBar.ts'
import { documents, updateDocuments } from './documents.ts'

export interface Progress {
  /** Shows what the benchmark does before the counted steps. */
  say(what: string): void
  /** Begins the next step. `seconds` is how long it is expected to take, if not `secondsPerStep`. */
  step(what: string, seconds?: number): void
  end(): void
}

export interface ProgressOptions {
  /** Monotonic milliseconds. */
  monotonicNow?: () => number
  /** `fraction` is the part of the steps that is done. */
  print?: (text: string, fraction: number) => void
  /** How long all steps are expected to take, if not `secondsPerStep` each. */
  totalSeconds?: number
}

/** The expected times are scaled by how long the steps so far have taken. */
export function createProgress(steps: number, secondsPerStep: number, options: ProgressOptions = {}): Progress {
  const { monotonicNow = () => performance.now(), print = printLine, totalSeconds = steps * secondsPerStep } = options
  let [begun, expectedSoFar, startedAt] = [0, 0, 0]
  return {
    say: what => print(`${what} …`, 0),
    step(what, seconds = secondsPerStep) {
      if (begun++ === 0) startedAt = monotonicNow()
      const scale = expectedSoFar === 0 ? 1 : (monotonicNow() - startedAt) / 1000 / expectedSoFar
      const left = inWords((totalSeconds - expectedSoFar) * scale)
      print(`[${begun}/${steps}] ${what}, about ${left} left`, expectedSoFar / totalSeconds)
      expectedSoFar += seconds
    },
    end: () => process.stderr.isTTY && process.stderr.write('\r\x1b[K'),
  }
}

function printLine(text: string, fraction: number): void {
  process.stderr.write(process.stderr.isTTY ? `\r${progressBar(fraction)} ${text}\x1b[K` : `${text}\n`)
}

function inWords(seconds: number): string {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`
}

/** bench/results/ is tracked and holds the numbers of the documents, so a run replaces it only with --save. */
export function saveResults(save: boolean, files: Record<string, string>): void {
  const names = Object.keys(files).map(name => `bench/results/${name}`)
  if (!save) {
    console.log(`\nNot saved. With --save this run replaces ${names.join(' and ')}.`)
    return
  }
  mkdirSync('bench/results', { recursive: true })
  for (const [name, content] of Object.entries(files)) writeFileSync(`bench/results/${name}`, content)
  updateDocuments()
  console.log(`\nSaved ${names.join(' and ')}, and the tables in ${documents.join(' and ')}.`)
}
