// Runs mocha inside Stryker's worker process, so that a mutant costs only the tests that reach it. Replaces Stryker's own
// mocha runner, which does not load with mocha 12.
import { hash } from 'node:crypto'
import { INSTRUMENTER_CONSTANTS, type InstrumenterContext, type StrykerOptions } from '@stryker-mutator/api/core'
import { commonTokens, declareClassPlugin, PluginKind, tokens } from '@stryker-mutator/api/plugin'
import {
  type DryRunOptions,
  type DryRunResult,
  DryRunStatus,
  determineHitLimitReached,
  type MutantRunOptions,
  type MutantRunResult,
  MutantRunStatus,
  type TestResult,
  type TestRunner,
  TestStatus,
  toMutantRunResult,
} from '@stryker-mutator/api/test-runner'
import Mocha from 'mocha'

/** The tests to run. */
export interface MochaSettings {
  files: string[]
  /** A regular expression that their titles match. */
  titles: string
}

// The instrumented sources read from this object which mutant is active, and record in it which test reaches which mutant.
const scope = globalThis as unknown as Record<string, InstrumenterContext | undefined>
const context: InstrumenterContext = scope[INSTRUMENTER_CONSTANTS.NAMESPACE] ?? {}
scope[INSTRUMENTER_CONSTANTS.NAMESPACE] = context

class MochaRunner implements TestRunner {
  static inject = tokens(commonTokens.options)

  private readonly mocha: Mocha
  private readonly titles: string
  private isLoaded = false
  private shouldRecordCoverage = false

  constructor({ mocha }: StrykerOptions) {
    const { files, titles } = mocha as MochaSettings
    this.titles = titles
    // No time limit: Stryker has its own, and ends the whole worker with everything that the mutant left running.
    this.mocha = new Mocha({ timeout: 0 }).cleanReferencesAfterRun(false)
    for (const file of files) this.mocha.addFile(file)
    const runner = this
    this.mocha.suite.beforeEach(function () {
      if (runner.shouldRecordCoverage) context.currentTestId = this.currentTest?.fullTitle() as string
    })
  }

  capabilities() {
    return { reloadEnvironment: false } // an ES module loads once per process
  }

  async dryRun({ coverageAnalysis, disableBail }: DryRunOptions): Promise<DryRunResult> {
    this.shouldRecordCoverage = coverageAnalysis === 'perTest'
    const result = await this.run(this.titles, disableBail)
    this.shouldRecordCoverage = false
    if (result.status === DryRunStatus.Complete && context.mutantCoverage) {
      result.mutantCoverage = context.mutantCoverage
    }
    return result
  }

  async mutantRun(options: MutantRunOptions): Promise<MutantRunResult> {
    const { activeMutant, testFilter, disableBail, hitLimit, mutantActivation } = options
    if (!isInSample(activeMutant)) return { status: MutantRunStatus.Error, errorMessage: 'not in the sample' }
    Object.assign(context, { hitLimit, hitCount: hitLimit === undefined ? undefined : 0 })
    // Processes and threads that a test starts get the mutant from their environment.
    process.env[INSTRUMENTER_CONSTANTS.ACTIVE_MUTANT_ENV_VARIABLE] = activeMutant.id
    // A static mutant runs while its module loads, so every test may notice it.
    if (mutantActivation === 'static') context.activeMutant = activeMutant.id
    const titles = testFilter?.map(title => `^${title.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')}$`)
    const pattern = titles?.join('|') ?? this.titles
    return toMutantRunResult(await this.run(pattern, disableBail, activeMutant.id))
  }

  private async run(pattern: string, disableBail: boolean, mutant?: string): Promise<DryRunResult> {
    try {
      if (!this.isLoaded) await this.mocha.loadFilesAsync()
      this.isLoaded = true
      setBail(this.mocha.suite, !disableBail)
      this.mocha.grep(new RegExp(pattern, 'i'))
      Object.assign(context, { activeMutant: mutant })
      const tests = await this.collectResults()
      return determineHitLimitReached(context.hitCount, context.hitLimit) ?? { status: DryRunStatus.Complete, tests }
    } catch (error) {
      return { status: DryRunStatus.Error, errorMessage: (error as Error).stack ?? String(error) }
    }
  }

  private collectResults(): Promise<TestResult[]> {
    const results: TestResult[] = []
    let startedAt = performance.now()
    const describe = (test: Mocha.Test | Mocha.Hook) => {
      const title = (test.ctx?.currentTest ?? test).fullTitle()
      const timeSpentMs = performance.now() - startedAt
      startedAt += timeSpentMs
      return { id: title, name: title, timeSpentMs, ...(test.file !== undefined && { fileName: test.file }) }
    }
    class Reporter {
      constructor(runner: Mocha.Runner) {
        runner.on('pass', test => results.push({ ...describe(test), status: TestStatus.Success }))
        runner.on('fail', (test, error) => {
          const failureMessage = error?.message || 'failed without a message'
          results.push({ ...describe(test), status: TestStatus.Failed, failureMessage })
        })
      }
    }
    this.mocha.reporter(Reporter as unknown as Mocha.ReporterConstructor)
    return new Promise(resolve => this.mocha.run(() => resolve(results)))
  }
}

function setBail(suite: Mocha.Suite, bail: boolean): void {
  suite.bail(bail)
  for (const child of suite.suites) setBail(child, bail)
}

/** `MUTANT_SAMPLE` is "percent seed". The sample depends on nothing else, so that two runs draw the same mutants. */
function isInSample({ fileName, location, mutatorName, replacement }: MutantRunOptions['activeMutant']): boolean {
  const [percent = '100', seed = ''] = process.env['MUTANT_SAMPLE']?.split(' ') ?? []
  const name = JSON.stringify([seed, fileName.split(/[/\\]/).at(-1), location, mutatorName, replacement])
  return hash('sha1', name, 'buffer').readUInt32LE(0) < (Number(percent) / 100) * 2 ** 32
}

// Not Stryker's own `testFiles` option: with it Stryker never activates a static mutant.
export const strykerValidationSchema = { properties: { mocha: { type: 'object' } } }

export const strykerPlugins = [declareClassPlugin(PluginKind.TestRunner, 'mocha', MochaRunner)]
