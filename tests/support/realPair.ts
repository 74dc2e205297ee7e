// Auth and Business as ./startServer starts them, in either layout, and the failures that no request may cause.
import type { LogLine } from './log.ts'
import { type Run, runStartServer } from './startServer.ts'

export const layouts = ['separate ports', 'single address'] as const
export type Layout = (typeof layouts)[number]

export interface RealPair {
  run: Run
  /** The addresses of the listeners. */
  urls: { business: string; auth: string; authInternal: string; businessInternal: string }
  dialects: { url: string; routes: string[] }[]
  /** Processes that ended or were restarted, and unhandled errors. */
  problems(): string[]
  stop(): Promise<void>
}

/** The system chooses the ports in either layout. */
export async function startRealPair(layout: Layout, env: Record<string, string> = {}): Promise<RealPair> {
  const run = runStartServer({ env: { ...(layout === 'single address' && { PORT: '0' }), ...env } })
  const urls = (await run.ready) as RealPair['urls']
  const lines = () =>
    run
      .stdout()
      .split('\n')
      .filter(line => line.startsWith('{') && line.endsWith('}'))
      .map(line => JSON.parse(line) as LogLine)
  const dialects = lines().filter(({ event }) => event === 'dialect_opened')
  return {
    run,
    urls,
    dialects: dialects.map(({ address, routes }) => ({ url: String(address), routes: routes as string[] })),
    problems() {
      const starts = lines().filter(({ event }) => event === 'listening')
      return [
        ...(run.process.exitCode === null ? [] : [`./startServer ended with ${run.process.exitCode}`]),
        ...(starts.length === 2 ? [] : [`${starts.length} processes have started to listen`]),
        ...lines()
          .filter(({ level, event }) => level === 'error' || event === 'closing')
          .map(line => JSON.stringify(line)),
        ...run
          .stderr()
          .split('\n')
          .filter(line => line !== '' && !/^Warning: Node.js/.test(line)),
      ]
    },
    async stop() {
      run.process.kill('SIGTERM')
      await run.ended
    },
  }
}
