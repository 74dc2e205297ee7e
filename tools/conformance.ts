// npm run conformance: plays the conformance vectors to a client of Auth, in any language. See --help.
import { randomBytes } from 'node:crypto'
import { readWithPositionals, refuseUsage } from '../commands/arguments.ts'
import { openClientProcess } from './conformance/clientProcess.ts'
import { openVectorRunner } from './conformance/runVector.ts'
import { loadVectors } from './conformance/vectors.ts'

const usage = `Usage: npm run conformance -- [options] COMMAND [ARGUMENTS]

Starts COMMAND, an adapter for a client of Auth, plays every vector of packages/client/conformance to it, and exits with 1
if the client does anything else than a vector expects. The README there describes the adapter. For example:

  npm run conformance -- node tools/conformance/typescriptAdapter.ts
  npm run conformance -- --only batching python3 packages/client-python/conformance.py

      --only TEXT    only the vectors whose file and title contain this text
      --slack MS     added to every time limit, for slow machines (300)`

const args = process.argv.slice(2)
const at = args.findIndex((arg, i) => !arg.startsWith('-') && !['--only', '--slack'].includes(args[i - 1] ?? ''))
const [command, ...commandArgs] = at < 0 ? [] : args.splice(at)
process.argv.splice(2, Infinity, ...args)
const { values } = readWithPositionals(usage, {
  only: { type: 'string', default: '' },
  slack: { type: 'string', default: '300' },
})
if (command === undefined) refuseUsage(usage, 'The command of the adapter is missing.')
const slackMs = Number(values.slack)
if (!Number.isSafeInteger(slackMs) || slackMs < 0)
  refuseUsage(usage, `--slack: expected milliseconds; got ${values.slack}.`)

const key = randomBytes(16).toString('hex')
const runner = await openVectorRunner({ key, slackMs })
const client = openClientProcess(command, commandArgs)
const counts = { passed: 0, failed: 0 }
for (const [file, vectors] of loadVectors()) {
  for (const vector of vectors) {
    const title = `${file}: ${vector.title}`
    if (!title.includes(values.only)) continue
    const problems = await runner.run(vector, client).catch((error: Error) => [error.message])
    counts[problems.length === 0 ? 'passed' : 'failed']++
    if (problems.length > 0) console.log([`✘ ${title}`, ...problems].join('\n    '))
  }
}
const code = await client.close()
await runner.close()
if (code !== 0) console.log(`The adapter ended with ${code}; expected 0 after the end of its stdin.`)
if (client.errors().includes(key)) console.log('The adapter wrote the service key to stderr.')
console.log(`${counts.passed} passed, ${counts.failed} failed`)
process.exit(counts.failed > 0 || code !== 0 || client.errors().includes(key) || counts.passed === 0 ? 1 : 0)
