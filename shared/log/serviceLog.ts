// The log of a service's process: stdout, a separate file for security events, and lines for a developer at a terminal.
import { fstatSync } from 'node:fs'
import type { Writable } from 'node:stream'
import type { LogLevel } from './levels.ts'
import { createLog, type Log } from './log.ts'
import { flushOutput, openOutput } from './output.ts'
import { createRequestLines } from './requestLines.ts'
import type { SecurityFileOptions } from './securityFile.ts'

export interface ServiceLogSettings {
  logLevel: LogLevel
  securityLog: SecurityFileOptions | null
  isDevelopment: boolean
}

type Output = NodeJS.WriteStream & { fd: number }

const maxWaitingBytes = 16 * 1024 // a terminal that is slow or paused gets no more lines

/** `monotonicNow` returns milliseconds. */
export function createServiceLog(service: string, stdout: Output, stderr: Output, monotonicNow: () => number) {
  const outputs: Writable[] = []

  return {
    /** Rejects with a message for the operator. */
    async open({ logLevel, securityLog, isDevelopment }: ServiceLogSettings): Promise<Log> {
      const stream = openOutput(stdout)
      outputs.push(stream)
      // The code that rotates files is loaded only if there is a security log.
      const securityStream = securityLog && (await (await import('./securityFile.ts')).openSecurityFile(securityLog))
      if (securityStream) outputs.push(securityStream)
      const log = createLog({ service, level: logLevel, stream, securityStream })
      // Only if the log itself goes to a file; otherwise both would be mixed on the terminal.
      if (!isDevelopment || !stderr.isTTY || !fstatSync(stdout.fd).isFile()) return log
      const terminal = openOutput(stderr)
      outputs.push(terminal)
      const show = createRequestLines({
        service,
        write(line) {
          const hasRoom = terminal.writableLength < maxWaitingBytes
          if (hasRoom) terminal.write(line)
          return hasRoom
        },
        stream: stderr,
        monotonicNow,
      })
      return {
        ...log,
        request(fields, user) {
          log.request(fields, user)
          show(fields, user)
        },
      }
    },

    /** Resolves when everything logged before has been written, or after two seconds. */
    async flush(): Promise<void> {
      await Promise.all(outputs.map(output => flushOutput(output)))
    },
  }
}
