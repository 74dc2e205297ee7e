// mocha's spec reporter, which also writes its counts to a file for ./runTests, and names the tests that failed at first.
import { writeFileSync } from 'node:fs'
import Mocha from 'mocha'

const endTimeoutMs = 60_000

export default class CountingReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options)
    const file = process.env['TEST_COUNTS_FILE']
    const retried: string[] = []
    runner.on('retry', (test: Mocha.Test, error: Error) => retried.push(`${test.fullTitle()}: ${error.message}`))
    runner.once('end', () => {
      const { passes, failures, pending } = this.stats
      if (retried.length > 0) console.log(`These tests failed once and ran again:\n  ${retried.join('\n  ')}\n`)
      if (file) writeFileSync(file, JSON.stringify({ passed: passes, failed: failures, skipped: pending }))
      setTimeout(() => {
        console.log(`✘ the process has not ended, because of ${process.getActiveResourcesInfo().join(', ')}`)
        process.exit(1)
      }, endTimeoutMs).unref()
    })
  }
}
