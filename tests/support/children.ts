// The environment of the processes that tests start: no coverage, because only code in the test processes counts, and a
// cache of compiled code, which saves a third of each start.
import { basename } from 'node:path'

// Only in mocha's workers: the process that starts them must pass coverage on.
if (basename(process.argv[1] ?? '') === 'worker.js') {
  delete process.env['NODE_V8_COVERAGE']
  process.env['NODE_COMPILE_CACHE'] = process.env['TEST_COMPILE_CACHE']
  // mocha sends this to a worker that has not ended after a second; on a busy machine, writing the coverage takes longer.
  process.on('SIGTERM', () => {})
}
