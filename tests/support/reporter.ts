// mocha's spec reporter, which also writes its counts to a file for ./runTests.
import { writeFileSync } from 'node:fs'
import Mocha from 'mocha'

const endTimeoutMs = 60_000

export default class CountingReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options)
    const file = process.env['TEST_COUNTS_FILE']
    runner.once('end', () => {
      const { passes, failures, pending } = this.stats
      if (file) writeFileSync(file, JSON.stringify({ passed: passes, failed: failures, skipped: pending }))
      setTimeout(() => {
        console.log(`✘ the process has not ended, because of ${process.getActiveResourcesInfo().join(', ')}`)
        process.exit(1)
      }, endTimeoutMs).unref()
    })
  }
}
