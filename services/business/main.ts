// Runs Business: the only reader of its environment and of the clock.
import { openLog } from '../../shared/log.ts'
import { runService } from '../../shared/service.ts'
import { openBusiness } from './app.ts'
import { readBusinessConfig } from './config.ts'

await runService(
  () => readBusinessConfig(process.env),
  config =>
    openBusiness(config, {
      log: openLog({ service: 'business', level: config.logLevel, stream: process.stdout }),
      monotonicNow: () => performance.now(),
    }),
)
