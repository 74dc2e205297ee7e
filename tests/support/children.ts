// What the processes that tests start inherit: no coverage, which counts what runs in the processes of the tests, and the
// compiled code of those before, or each would spend a third of its start on it.
import { basename } from 'node:path'

// Not in the process that starts those of the tests: they are to count.
if (basename(process.argv[1] ?? '') === 'worker.js') {
  delete process.env['NODE_V8_COVERAGE']
  process.env['NODE_COMPILE_CACHE'] = process.env['TEST_COMPILE_CACHE']
}
