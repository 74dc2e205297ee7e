// The environment of the processes that tests start: a cache of compiled code, which saves a third of each start, and no
// coverage, which would take longer, except for commands: they run only in processes of their own.

const { MOCHA_WORKER_ID, TEST_COMPILE_CACHE } = process.env

// Not in a process that starts mocha's workers, because it must pass coverage on to them.
if (!process.argv.includes('--parallel')) {
  process.env['TEST_COVERAGE_FOLDER'] = process.env['NODE_V8_COVERAGE'] ?? ''
  delete process.env['NODE_V8_COVERAGE']
  if (TEST_COMPILE_CACHE) process.env['NODE_COMPILE_CACHE'] = TEST_COMPILE_CACHE
}

if (MOCHA_WORKER_ID !== undefined) {
  // mocha sends this to a worker that has not ended after a second; on a busy machine, writing the coverage takes longer.
  process.on('SIGTERM', () => {})
}
