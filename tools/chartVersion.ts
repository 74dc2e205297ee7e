// The Helm chart at a release: `npm version` gives it the version in package.json, which is also the default tag of its images.
import { readFileSync, writeFileSync } from 'node:fs'
import { readArguments } from '../commands/arguments.ts'

const file = 'deploy/helm/latchkey/Chart.yaml'

readArguments(`Usage: node tools/chartVersion.ts\n\nWrites the version in package.json into ${file}.`, {})
const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
writeFileSync(file, readFileSync(file, 'utf8').replaceAll(/^(version|appVersion): .*$/gm, `$1: ${version}`))
