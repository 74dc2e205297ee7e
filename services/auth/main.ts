// Runs Auth: the only reader of its environment and of the clock.
import { availableParallelism } from 'node:os'
import { openLog } from '../../shared/log.ts'
import { runService } from '../../shared/service.ts'
import { openAuth } from './app.ts'
import { readAuthConfig } from './config.ts'

await runService(
  () => readAuthConfig(process.env),
  config =>
    openAuth(config, {
      log: openLog({ service: 'auth', level: config.logLevel, stream: process.stdout }),
      now: Date.now,
      monotonicNow: () => performance.now(),
      // One core stays with the thread that validates.
      hashWorkers: Math.max(1, availableParallelism() - 1),
    }),
)
