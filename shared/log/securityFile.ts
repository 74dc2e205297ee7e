// The files of the security log: a new file begins each day and when the last one is full; old files are deleted after
// some days. Hides winston-daily-rotate-file, which names and opens the files, and adds what it lacks: a bound on the
// lines that wait for a slow disk, and retries after an error.
import { close, fstatSync, open } from 'node:fs'
import { readdir, stat, unlink } from 'node:fs/promises'
import { basename, dirname, extname, join } from 'node:path'
import type { Writable } from 'node:stream'
import DailyRotateFile from 'winston-daily-rotate-file'
import { createRetryingStream, writeAll } from './output.ts'

export interface SecurityFileOptions {
  /** `logs/security.log` is a link to the newest of `logs/security.2026-11-20.log`, `logs/security.2026-11-20.1.log`, … */
  path: string
  /** Approximate maximum size of one file. */
  maxBytes: number
  keepDays: number
}

interface OpenFile {
  transport: DailyRotateFile
  /** The path of the current file. */
  path: string
  fd: number
}

/** Rejects with a message for the operator if the file cannot be written. Dates are in UTC. */
export async function openSecurityFile({ path, maxBytes, keepDays }: SecurityFileOptions): Promise<Writable> {
  const folder = dirname(path)
  const extension = extname(path)
  const name = basename(path, extension)
  // One pair of callbacks is enough, because the stream below waits for each write to finish.
  let written = () => {}
  let failed: (error: Error) => void = () => {}
  let file: OpenFile | null = await openFile().catch((cause: Error) => {
    throw new Error(`SECURITY_LOG_FILE: ${path} cannot be written (${cause.message})`, { cause })
  })

  function openFile(): Promise<OpenFile> {
    return new Promise((resolve, reject) => {
      const opened: Partial<OpenFile> = {}
      // Throws if the directory cannot be created.
      const transport = new DailyRotateFile({
        filename: join(folder, `${name}.%DATE%`),
        extension,
        datePattern: 'YYYY-MM-DD',
        utc: true,
        maxSize: maxBytes,
        createSymlink: true,
        symlinkName: basename(path),
        options: { flags: 'a', mode: 0o600, fs: { open, close, write: writeForTransport } },
      })
      opened.transport = transport
      transport.logStream.on('error', (error: Error) => {
        reject(error)
        failed(error)
      })
      transport.on('new', path => {
        opened.path = path
        void removeOld()
      })
      transport.logStream.on('open', (fd: number) => {
        opened.fd = fd
        resolve(opened as OpenFile)
      })
    })
  }

  function writeForTransport(
    fd: number,
    text: Uint8Array,
    offset: number,
    length: number,
    _position: unknown,
    done: (error: Error | null, count: number) => void,
  ): void {
    void writeAll(fd, text.subarray(offset, offset + length)).then(() => {
      done(null, length)
      written()
    })
  }

  async function deliver(text: Buffer): Promise<void> {
    if (file !== null && !(await isThere(file))) {
      file.transport.close?.()
      file = null
    }
    file ??= await openFile()
    const { transport } = file
    try {
      await new Promise<void>((resolve, reject) => {
        written = resolve
        failed = reject
        transport.logStream.write(String(text))
      })
    } catch (error) {
      file = null
      throw error
    }
  }

  async function removeOld(): Promise<void> {
    const oldestDay = new Date()
    oldestDay.setUTCDate(oldestDay.getUTCDate() - keepDays)
    const oldest = oldestDay.toISOString().slice(0, 10)
    const names = await readdir(folder).catch(() => [])
    for (const found of names) {
      const date = dateIn(found)
      if (date !== null && date < oldest) await unlink(join(folder, found)).catch(() => {})
    }
  }

  /** The date in the name of one of our files; null for any other file. */
  function dateIn(found: string): string | null {
    if (!found.startsWith(`${name}.`) || !found.endsWith(extension)) return null
    const between = found.slice(name.length + 1, found.length - extension.length)
    return /^(\d{4}-\d\d-\d\d)(\.\d+)?$/.exec(between)?.[1] ?? null
  }

  return createRetryingStream(deliver)
}

/** False if the file was removed or replaced, so that further writes to it would be lost. */
async function isThere({ path, fd }: OpenFile): Promise<boolean> {
  const named = await stat(path).catch(() => null)
  return named !== null && named.ino === fstatSync(fd).ino
}
