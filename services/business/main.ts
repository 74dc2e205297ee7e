// Runs Business. The only file of Business that reads the environment and the clock.

import { createServiceLog } from '../../shared/log/serviceLog.ts'
import { runService } from '../../shared/service.ts'
import { openBusiness } from './app.ts'
import { readBusinessConfig } from './config.ts'

const serviceLog = createServiceLog('business', process.stdout, process.stderr, () => performance.now())

await runService(
  () => readBusinessConfig(process.env),
  async config =>
    openBusiness(config, {
      log: await serviceLog.open(config),
      monotonicNow: () => performance.now(),
    }),
  serviceLog.flush,
)
