// Shows on stderr what a benchmark is doing and how long it still takes: one changing line on a terminal, otherwise a
// line per step. Also the only place that writes bench/results/.
import { mkdirSync, writeFileSync } from 'node:fs'

export interface Progress {
  /** Shows what the benchmark does before the counted steps. */
  say(what: string): void
  /** Begins the next step. */
  step(what: string): void
  end(): void
}

/** `secondsPerStep` is a guess, used until a step has been measured. */
export function createProgress(steps: number, secondsPerStep: number): Progress {
  const beganAt: number[] = []
  const print = (text: string) => process.stderr.write(process.stderr.isTTY ? `\r${text}\x1b[K` : `${text}\n`)
  return {
    say: what => print(`${what} …`),
    step(what) {
      beganAt.push(performance.now())
      const done = beganAt.length - 1
      const [first = 0, now = 0] = [beganAt[0], beganAt.at(-1)]
      const perStep = done === 0 ? secondsPerStep : (now - first) / 1000 / done
      print(`[${beganAt.length}/${steps}] ${what}, about ${inWords(perStep * (steps - done))} left`)
    },
    end: () => process.stderr.isTTY && process.stderr.write('\r\x1b[K'),
  }
}

function inWords(seconds: number): string {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`
}

/** bench/results/ is tracked and holds the numbers of the README, so a run replaces it only with --save. */
export function saveResults(save: boolean, files: Record<string, string>): void {
  const names = Object.keys(files).map(name => `bench/results/${name}`)
  if (!save) {
    console.log(`\nNot saved. With --save this run replaces ${names.join(' and ')}.`)
    return
  }
  mkdirSync('bench/results', { recursive: true })
  for (const [name, content] of Object.entries(files)) writeFileSync(`bench/results/${name}`, content)
  console.log(`\nSaved ${names.join(' and ')}.`)
}
