// Where log lines go: stdout, whatever it is. Hides what differs between pipes, files and terminals, so that no reader that
// is stopped and no full disk holds up the process that writes: what waits is kept, until there is too much of it (log.ts).
import { constants, fstatSync, openSync, write } from 'node:fs'
import { Socket } from 'node:net'
import { Writable } from 'node:stream'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'

const retryAfterMs = 200 // a full disk has room again, a directory is there again

/**
 * A pipe or a socket is written to as Node does, which on POSIX does not wait for the reader. Files and terminals, where
 * Node would, are written to from its thread pool; not so pipes, since a thread that waits for a reader keeps the process
 * from its end.
 */
export function openOutput(stdout: NodeJS.WriteStream & { fd: number }): Writable {
  if (stdout instanceof Socket && !stdout.isTTY) return openPipeAgain(stdout.fd) ?? stdout
  return createRetryingStream(text => writeAll(stdout.fd, text))
}

/**
 * O_NONBLOCK belongs to all who have inherited the pipe, and whoever of them starts or ends takes it back: opened again,
 * it is ours alone. Null where that is not possible: sockets, and pipes of another user (containers).
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

/** Writes all lines that wait in one go, each go after the one before; one that fails is tried again until it is done. */
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

/** Rejects never: where a disk is full in the middle of a line, the other half follows once there is room. */
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

/** Resolves once everything is written that was logged before, or cannot be within the time. */
export async function flushOutput(output: Writable, withinMs = 2000): Promise<void> {
  const stepMs = 10
  for (let turn = 0; turn < 3; turn++) await nextTurn() // winston hands lines on in turns of its own
  for (let waitedMs = 0; output.writableLength > 0 && !output.destroyed && waitedMs < withinMs; waitedMs += stepMs) {
    await sleep(stepMs)
  }
}
