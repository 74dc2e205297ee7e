// The log of a service's process: stdout, and a separate file for security events.
import type { Writable } from 'node:stream'
import type { LogLevel } from './levels.ts'
import { createLog, type Log } from './log.ts'
import { flushOutput, openOutput } from './output.ts'
import type { SecurityFileOptions } from './securityFile.ts'

export interface ServiceLogSettings {
  logLevel: LogLevel
  securityLog: SecurityFileOptions | null
}

export function createServiceLog(service: string, stdout: NodeJS.WriteStream & { fd: number }) {
  const outputs: Writable[] = []

  return {
    /** Rejects with a message for the operator. */
    async open({ logLevel, securityLog }: ServiceLogSettings): Promise<Log> {
      const stream = openOutput(stdout)
      outputs.push(stream)
      // The code that rotates files is loaded only if there is a security log.
      const securityStream = securityLog && (await (await import('./securityFile.ts')).openSecurityFile(securityLog))
      if (securityStream) outputs.push(securityStream)
      return createLog({ service, level: logLevel, stream, securityStream })
    },

    /** Resolves when everything logged before has been written, or after two seconds. */
    async flush(): Promise<void> {
      await Promise.all(outputs.map(output => flushOutput(output)))
    },
  }
}
