// The OpenAPI documents under the rules of Redocly and Spectral, which people run before they generate a client.
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { describeAuth, describeAuthInternal } from '../../../services/auth/routes/index.ts'
import { describeBusiness, describeBusinessInternal } from '../../../services/business/routes.ts'

const documents = {
  auth: describeAuth(),
  authInternal: describeAuthInternal(),
  business: describeBusiness(),
  businessInternal: describeBusinessInternal(),
}

const spectralRules = {
  extends: 'spectral:oas',
  rules: {
    // Knows scopes of OAuth only. OpenAPI 3.1 also lists the roles that an operation needs, for schemes of any type (section 4.8.30).
    'oas3-operation-security-defined': 'off',
  },
}

describe('the OpenAPI documents, checked by linters', () => {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-lint-'))
  const write = (name: string, content: object) => {
    const file = join(folder, `${name}.json`)
    writeFileSync(file, JSON.stringify(content))
    return file
  }
  const rulesFile = write('spectral', spectralRules)
  const files = Object.entries(documents).map(([name, document]) => write(name, document))

  after(() => rmSync(folder, { recursive: true }))

  it('have no error and no warning under the recommended rules of Redocly, except those of one rule that is switched off', async () => {
    for (const file of files) expect(await redocly(file), file).to.deep.equal([])
  })

  it('have no finding of any severity under the rules of Spectral, except those of one rule that is switched off', async () => {
    expect(await spectral(files, rulesFile)).to.deep.equal([])
  })

  it('would fail both with an operation that has no operationId', async () => {
    const broken = structuredClone(documents.auth) as { paths: Record<string, { post?: { operationId?: string } }> }
    delete broken.paths['/login']?.post?.operationId
    const file = write('broken', broken)
    expect(await redocly(file)).to.deep.equal(['operation-operationId'])
    expect(await spectral([file], rulesFile)).to.deep.equal(['operation-operationId'])
  })
})

/** The rules that were broken. */
async function redocly(file: string): Promise<string[]> {
  // `/` only redirects. Spectral's operation-success-response, which takes 3xx too, checks the other operations.
  const skipped = ['--skip-rule', 'operation-2xx-response']
  const output = await run('redocly', ['lint', file, '--extends', 'recommended', '--format', 'json', ...skipped])
  return (JSON.parse(output) as { problems: { ruleId: string }[] }).problems.map(({ ruleId }) => ruleId)
}

/** The rules that were broken. */
async function spectral(files: string[], rulesFile: string): Promise<string[]> {
  const output = await run('spectral', ['lint', ...files, '--ruleset', rulesFile, '--format', 'json', '--quiet'])
  return (JSON.parse(output) as { code: string }[]).map(({ code }) => code)
}

/** What the command printed, even if it exits with 1, as linters do after findings. */
async function run(command: string, args: string[]): Promise<string> {
  const env = { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' }
  const { stdout } = await promisify(execFile)(`node_modules/.bin/${command}`, args, { env, maxBuffer: 1e8 }).catch(
    (error: { stdout: string }) => error,
  )
  return stdout
}
