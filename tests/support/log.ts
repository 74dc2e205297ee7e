// A log that a test can read.
import { Writable } from 'node:stream'
import { createLog } from '../../shared/log/log.ts'
import { searchLog } from './canaries.ts'

export interface LogLine {
  level: string
  event: string
  [field: string]: unknown
}

export function collectLog(service: string, securityStream: Writable | null = null) {
  const lines: LogLine[] = []
  const stream = new Writable({
    write(chunk, _encoding, done) {
      searchLog([String(chunk)], `the log of ${service}`)
      for (const line of String(chunk).trimEnd().split('\n')) lines.push(JSON.parse(line))
      done()
    },
  })
  return { log: createLog({ service, level: 'debug', stream, securityStream }), lines }
}
