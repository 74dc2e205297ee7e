// Writes log lines to stdout. Hides the differences between pipes, files and terminals, so that neither a stopped
// reader nor a full disk delays the process. Waiting lines are buffered up to a limit (log.ts).
import { constants, fstatSync, openSync, write } from 'node:fs'
import { Socket } from 'node:net'
import { Writable } from 'node:stream'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'

const retryAfterMs = 200 // for a full disk to get room, or a removed directory to come back

/**
 * Pipes and sockets are written by Node, which on POSIX does not wait for the reader. It does wait for files and
 * terminals, so those are written from its thread pool. Pipes are not, because a thread that waits for a reader keeps
 * the process from ending.
 */
export function openOutput(stdout: NodeJS.WriteStream & { fd: number }): Writable {
  if (stdout instanceof Socket && !stdout.isTTY) return openPipeAgain(stdout.fd) ?? stdout
  return createRetryingStream(text => writeAll(stdout.fd, text))
}

/**
 * All processes that inherited a pipe share its O_NONBLOCK flag, and each can clear it. A pipe that is opened again is
 * ours alone. Null if that is not possible: sockets, and pipes of another user (containers).
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

/** Writes all waiting lines at once, one write after another, and repeats a failed write until it succeeds. */
export function createRetryingStream(deliver: (text: Buffer) => Promise<void>): Writable {
  async function deliverAtLast(text: Buffer): Promise<void> {
    for (;;) {
      try {
        return await deliver(text)
      } catch {
        await pause()
      }
    }
  }
  return new Writable({
    write: (chunk: Buffer, _encoding, done) => void deliverAtLast(chunk).then(() => done()),
    writev: (waiting, done) =>
      void deliverAtLast(Buffer.concat(waiting.map(({ chunk }) => chunk as Buffer))).then(() => done()),
  })
}

/** Never rejects. If the disk is full in the middle of a line, the rest follows when there is room. */
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

/** Resolves when everything logged before has been written, or after `withinMs`. */
export async function flushOutput(output: Writable, withinMs = 2000): Promise<void> {
  const stepMs = 10
  for (let turn = 0; turn < 3; turn++) await nextTurn() // winston passes lines on in later turns
  for (let waitedMs = 0; output.writableLength > 0 && !output.destroyed && waitedMs < withinMs; waitedMs += stepMs) {
    await sleep(stepMs)
  }
}
