// Questions to the operator, and the progress of an import. Hides terminals, pipes and echo.
import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import type { Invocation } from './commandLine.ts'
import { decodeLine, readLines } from './lines.ts'
import { progressBar } from './progressBar.ts'

export const interruptedCode = 130 // the exit code of a shell for Ctrl-C

const progressEveryMs = 100 // on a terminal
const progressEveryRows = 10_000 // if stderr is not a terminal

export async function promptForPassword(): Promise<string> {
  const password = await prompt('Password: ', { hidden: true })
  if (password !== (await prompt('Repeat password: ', { hidden: true }))) throw new Error('The passwords differ.')
  return password
}

function prompt(question: string, { hidden = false } = {}): Promise<string> {
  const output = hidden ? new Writable({ write: (_chunk, _encoding, done) => done() }) : process.stderr
  const terminal = createInterface({ input: process.stdin, output, terminal: true, historySize: 0 })
  return new Promise(resolve => {
    process.stderr.write(question) // the terminal echoes until the interface is open
    terminal.once('close', () => process.exit(interruptedCode)) // Ctrl-C, Ctrl-D
    terminal.question('', answer => {
      terminal.removeAllListeners('close').close()
      if (hidden) process.stderr.write('\n')
      resolve(answer)
    })
  })
}

/** Call before anything else if a command cannot be undone. */
export function requireTerminalOrYes(command: string, { isSet, refuse }: Pick<Invocation, 'isSet' | 'refuse'>): void {
  if (!process.stdin.isTTY && !isSet('yes')) refuse(`Without a terminal, ${command} needs --yes.`)
}

/** Asks the question, unless the operator has agreed with --yes. */
export async function confirm(question: string, { isSet }: Pick<Invocation, 'isSet'>): Promise<boolean> {
  return isSet('yes') || (await prompt(`${question} [y/N] `)).toLowerCase() === 'y'
}

/** The first line of stdin. */
export async function readPassword(): Promise<string> {
  for await (const line of readLines(process.stdin)) {
    const text = decodeLine(line)
    if (typeof text === 'object') throw new Error(`The password is ${text.problem}.`)
    return text
  }
  throw new Error('There is no password on stdin.')
}

/** Writes to stderr: on a terminal a line that is overwritten, otherwise a new line now and then. */
export function createProgress() {
  const { isTTY } = process.stderr
  const startedAt = performance.now()
  let shownAt = startedAt
  const clear = () => void (isTTY && process.stderr.write('\r\x1b[K'))
  return {
    clear,

    /** `fraction` of the whole is null if the whole is not known. */
    show(rows: number, fraction: number | null): void {
      const at = performance.now()
      if (isTTY ? at < shownAt + progressEveryMs : rows % progressEveryRows !== 0) return
      shownAt = at
      clear()
      const text = `${rows} rows, ${Math.round((rows * 1000) / (at - startedAt))}/s`
      process.stderr.write(isTTY ? `${fraction === null ? '' : `${progressBar(fraction)} `}${text}` : `${text}\n`)
    },

    print(message: string): void {
      clear()
      process.stderr.write(`${message}\n`)
    },
  }
}
