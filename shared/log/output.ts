// Writes the log to stdout. Hides the difference between pipes, files and terminals: neither a stopped reader nor a full disk
// blocks the process. Lines wait in memory; log.ts limits how many.
import { constants, fstatSync, openSync, write } from 'node:fs'
import { Socket } from 'node:net'
import { Writable } from 'node:stream'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'

const retryAfterMs = 200 // for example on a full disk, or while the directory is missing

/**
 * Pipes and sockets get Node's own stream, which on POSIX does not wait for the reader. Files and terminals, on which Node
 * would block, get a stream that writes in the thread pool. With a pipe, a thread that waits for the reader would keep the
 * process from exiting.
 */
export function openOutput(stdout: NodeJS.WriteStream & { fd: number }): Writable {
  if (stdout instanceof Socket && !stdout.isTTY) return openPipeAgain(stdout.fd) ?? stdout
  return createRetryingStream(text => writeAll(stdout.fd, text))
}

/**
 * O_NONBLOCK is shared by all processes that inherited the pipe, and each of them resets it when it starts or exits. A pipe
 * that is opened again has its own flag. Null if it cannot be opened again: a socket never can, nor can a pipe of another
 * user (containers).
 */
function openPipeAgain(fd: number): Writable | null {
  try {
    if (!fstatSync(fd).isFIFO()) return null
    return new Socket({
      fd: openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK),
      readable: false,
    })
  } catch {
    return null
  }
}

/** Writes all waiting lines together, retries a write until it succeeds, and only then begins the next. */
export function createRetryingStream(deliver: (text: Buffer) => Promise<void>): Writable {
  async function deliverWithRetries(text: Buffer): Promise<void> {
    for (;;) {
      try {
        return await deliver(text)
      } catch {
        await pause()
      }
    }
  }
  return new Writable({
    write: (chunk: Buffer, _encoding, done) => void deliverWithRetries(chunk).then(() => done()),
    writev: (waiting, done) =>
      void deliverWithRetries(Buffer.concat(waiting.map(({ chunk }) => chunk as Buffer))).then(() => done()),
  })
}

/** Never rejects. If the disk is full in the middle of a line, the rest follows once there is room. */
export async function writeAll(fd: number, text: Uint8Array): Promise<void> {
  for (let done = 0; done < text.length; ) {
    const written = await new Promise<number>(resolve =>
      write(fd, text, done, text.length - done, null, (error, count) => resolve(error ? 0 : count)),
    )
    done += written
    if (written === 0) await pause()
  }
}

function pause(): Promise<void> {
  return sleep(retryAfterMs, undefined, { ref: false })
}

/** Resolves once everything that has been logged is written, or after `timeoutMs`. */
export async function flushOutput(output: Writable, timeoutMs = 2000): Promise<void> {
  const stepMs = 10
  for (let turn = 0; turn < 3; turn++) await nextTurn() // winston passes lines on in later turns
  for (let waitedMs = 0; output.writableLength > 0 && !output.destroyed && waitedMs < timeoutMs; waitedMs += stepMs) {
    await sleep(stepMs)
  }
}
