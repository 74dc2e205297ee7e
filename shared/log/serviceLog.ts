// The log of a service's process: on stdout, and what is for an auditor in a file of its own, too.
import type { Writable } from 'node:stream'
import { createLog, type Log, type LogLevel } from './log.ts'
import { flushOutput, openOutput } from './output.ts'
import type { SecurityFileOptions } from './securityFile.ts'

export interface ServiceLogSettings {
  logLevel: LogLevel
  securityLog: SecurityFileOptions | null
}

export function createServiceLog(service: string, stdout: NodeJS.WriteStream & { fd: number }) {
  const outputs: Writable[] = []

  return {
    /** Rejects with a sentence for the operator. */
    async open({ logLevel, securityLog }: ServiceLogSettings): Promise<Log> {
      const stream = openOutput(stdout)
      outputs.push(stream)
      // What rotates files is not loaded where there is none.
      const securityStream = securityLog && (await (await import('./securityFile.ts')).openSecurityFile(securityLog))
      if (securityStream) outputs.push(securityStream)
      return createLog({ service, level: logLevel, stream, securityStream })
    },

    /** Resolves once everything is written that was logged before, or cannot be within two seconds. */
    async flush(): Promise<void> {
      await Promise.all(outputs.map(output => flushOutput(output)))
    },
  }
}
