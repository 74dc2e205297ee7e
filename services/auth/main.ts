// Runs Auth. The only file of Auth that reads the environment and the clock; all others receive them as arguments.
import { availableParallelism } from 'node:os'
import { createServiceLog } from '../../shared/log/serviceLog.ts'
import { runService } from '../../shared/service.ts'
import { openAuth } from './app.ts'
import { createClock } from './clock.ts'
import { readAuthConfig } from './config.ts'
import { startHashThreads } from './users/hashThreads.ts'

const monotonicNow = () => performance.now()
const serviceLog = createServiceLog('auth', process.stdout, process.stderr, monotonicNow)

await runService(
  () => readAuthConfig(process.env),
  async config =>
    openAuth(config, {
      log: await serviceLog.open(config),
      clock: createClock(Date.now, monotonicNow),
      monotonicNow,
      // Leave one core to the main thread, which validates tokens.
      hashThreads: startHashThreads(Math.max(1, availableParallelism() - 1)),
    }),
  serviceLog.flush,
)
