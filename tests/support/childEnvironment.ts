// What processes that tests start get from the environment of the tests.

/**
 * Measures the coverage of a command, if coverage is measured at all. Then without the cache of compiled code, because V8 counts
 * whole functions instead of branches in code from there.
 */
export function commandCoverage(): Record<string, string> {
  const { TEST_COVERAGE_FOLDER } = process.env
  return TEST_COVERAGE_FOLDER ? { NODE_V8_COVERAGE: TEST_COVERAGE_FOLDER, NODE_DISABLE_COMPILE_CACHE: '1' } : {}
}

/** For a process that must not inherit the settings of the tests: where programs are, and where compiled code is kept. */
export function bareEnvironment(): Record<string, string> {
  const { PATH = '', NODE_COMPILE_CACHE } = process.env
  return { PATH, ...(NODE_COMPILE_CACHE && { NODE_COMPILE_CACHE }) }
}
