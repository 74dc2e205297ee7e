// Drives a client in any language as a process, with lines of JSON on its stdin and stdout. The README of
// packages/client/conformance describes the protocol. Hides the process.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { ClientAnswer, ClientUnderTest } from './runVector.ts'

export interface ClientProcess extends ClientUnderTest {
  /** What the process has written to stderr. */
  errors(): string
  /** Resolves to the exit code. */
  close(): Promise<number | null>
}

type Received = { opened: true } | ({ id: number } & ClientAnswer)

const maxSilenceMs = 20_000

export function openClientProcess(command: string, args: string[], env = process.env): ClientProcess {
  const child = spawn(command, args, { stdio: 'pipe', env })
  const waiting = new Map<number | 'opened', PromiseWithResolvers<ClientAnswer>>()
  let errors = ''
  let lastId = 0
  const fail = (reason: string) => {
    for (const { reject } of waiting.values()) reject(new Error(`${reason}\n${errors.slice(-2000)}`))
    waiting.clear()
  }
  const ended = new Promise<number | null>(resolve => {
    child.once('error', error => {
      fail(`${command} cannot be started: ${error.message}`)
      resolve(null)
    })
    child.once('close', code => {
      fail(`${command} ended with ${code}.`)
      resolve(code)
    })
  })
  child.stderr.setEncoding('utf8').on('data', chunk => {
    errors += chunk
  })
  child.stdin.on('error', () => {}) // 'close' reports it
  child.stdout.setEncoding('utf8').on('data', readLines(receive))

  function receive(line: string): void {
    let received: Received
    try {
      received = JSON.parse(line)
    } catch {
      fail(`${command} wrote a line that is not JSON: ${line.slice(0, 200)}`)
      return
    }
    const key = 'opened' in received ? 'opened' : received.id
    waiting.get(key)?.resolve(received as ClientAnswer)
    waiting.delete(key)
  }

  function expectLine(key: number | 'opened'): Promise<ClientAnswer> {
    const line = Promise.withResolvers<ClientAnswer>()
    waiting.set(key, line)
    const timer = setTimeout(
      () => line.reject(new Error(`${command} wrote no line for ${key}.\n${errors.slice(-2000)}`)),
      maxSilenceMs,
    )
    line.promise.then(
      () => clearTimeout(timer),
      () => clearTimeout(timer),
    )
    return line.promise
  }

  const write = (message: object) => child.stdin.write(`${JSON.stringify(message)}\n`)

  return {
    errors: () => errors,

    async open(auth) {
      const opened = expectLine('opened')
      write({ open: auth })
      await opened
    },

    send(requests) {
      const numbered = requests.map(({ headers, needs }) => ({
        id: ++lastId,
        headers,
        ...(needs.length > 0 && { needs }),
      }))
      const answers = numbered.map(({ id }) => expectLine(id))
      write({ send: numbered })
      return answers
    },

    async close() {
      child.stdin.end()
      const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
      const code = await ended
      clearTimeout(timer)
      if (!child.stdout.destroyed) await once(child.stdout, 'close')
      return code
    },
  }
}

/** Not node:readline, which also ends a line at U+2028, a character that JSON may contain. */
function readLines(receive: (line: string) => void): (chunk: string) => void {
  let unread = ''
  return chunk => {
    const lines = (unread + chunk).split('\n')
    unread = lines.pop() ?? ''
    for (const line of lines) receive(line)
  }
}
