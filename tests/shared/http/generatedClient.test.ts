// A client whose types openapi-typescript generates from the documents that the services serve: it compiles, it works, and a program
// that does not follow the documents does not compile.
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { demo } from '../../support/credentials.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'

const program = `
import { argv, stdout } from 'node:process'
import type { components, paths as AuthPaths } from './auth.d.ts'
import type { paths as BusinessPaths } from './business.d.ts'

type BodyOf<Operation> = Operation extends { requestBody: { content: { 'application/json': infer Body } } } ? Body : null
type AnswerOf<Operation, Status extends number> = Operation extends {
  responses: Record<Status, { content: { 'application/json': infer Answer } }>
}
  ? Answer
  : null
type Problem = components['schemas']['Problem']

const [, , authUrl = '', businessUrl = '', username = '', password = ''] = argv

async function send<Answer>(method: string, url: string, token: string | null, body: unknown, expected: number): Promise<Answer> {
  const headers = { 'content-type': 'application/json', ...(token !== null && { authorization: \`Bearer \${token}\` }) }
  const answer = await fetch(url, { method, headers, ...(body !== null && { body: JSON.stringify(body) }) })
  if (answer.status !== expected) throw new Error(\`\${method} \${url}: \${answer.status} \${await answer.text()}\`)
  return (expected === 204 ? null : await answer.json()) as Answer
}

type LogIn = AuthPaths['/login']['post']
type CreateKey = AuthPaths['/keys']['post']
type ListKeys = AuthPaths['/keys']['get']
type GetData = BusinessPaths['/data']['get']

const credentials: BodyOf<LogIn> = { username, password }
const { token, expiresAt, expires_in } = await send<AnswerOf<LogIn, 200>>('POST', \`\${authUrl}/login\`, null, credentials, 200)
const getData = (secret: string) => send<AnswerOf<GetData, 200>>('GET', \`\${businessUrl}/data\`, secret, null, 200)
const { data } = await getData(token)
const terms: BodyOf<CreateKey> = { name: 'generated', scope: 'orders:read' }
const { id, secret } = await send<AnswerOf<CreateKey, 201>>('POST', \`\${authUrl}/keys\`, token, terms, 201)
const { data: dataWithKey } = await getData(secret)
const { keys } = await send<AnswerOf<ListKeys, 200>>('GET', \`\${authUrl}/keys\`, token, null, 200)
const names: (string | null)[] = keys.map(key => key.name)
await send<null>('DELETE', \`\${authUrl}/keys/\${id}\`, token, null, 204)
const { error, type } = await send<Problem>('GET', \`\${businessUrl}/data\`, secret, null, 401)
const isTheKeyRefused: boolean = error === 'invalid_token'
stdout.write(JSON.stringify({ data, dataWithKey, names, isTheKeyRefused, type, lifetimeMs: expiresAt - Date.now(), expires_in }))
`

const mistakes: [string, string][] = [
  ['{ username, password }', '{ username }'],
  ["name: 'generated'", "nam: 'generated'"],
  ['const { token,', 'const { tokens: token,'],
  ["error === 'invalid_token'", "error === 'invalid_tokens'"],
  ["['/keys']['get']", "['/keys']['put']"],
]

describe('a client with generated types', () => {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-generated-'))
  let urls: string[]

  before(async () => {
    const auth = await startAuth()
    const business = await startBusiness(auth.internalUrl)
    urls = [auth.url, business.url]
    for (const [name, { url }] of Object.entries({ auth, business })) {
      const document = join(folder, `${name}.json`)
      writeFileSync(document, await (await fetch(`${url}/openapi.json`)).text())
      await run('openapi-typescript', [document, '--output', join(folder, `${name}.d.ts`)])
    }
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
  })
  after(async () => {
    rmSync(folder, { recursive: true })
    await closeServers()
  })

  it('compiles, logs in, gets data, and creates, lists and ends a key', async () => {
    expect(await compile('program', program)).to.equal('')
    const { stdout } = await promisify(execFile)(process.execPath, [
      join(folder, 'program.ts'),
      ...urls,
      demo.username,
      demo.password,
    ])
    const { lifetimeMs, expires_in, ...seen } = JSON.parse(stdout)
    expect(seen).to.deep.equal({
      data: `Hello, ${demo.username}!`,
      dataWithKey: `Hello, ${demo.username}!`,
      names: ['generated'],
      isTheKeyRefused: true,
      type: '/problems/invalid_token',
    })
    expect(lifetimeMs / 1000).to.be.within(expires_in - 60, expires_in)
  })

  for (const [right, wrong] of mistakes) {
    it(`does not compile with ${wrong} instead of ${right}`, async () => {
      expect(program).to.include(right)
      expect(await compile('wrong', program.replace(right, wrong))).to.match(/wrong\.ts.* error TS\d+/)
    })
  }

  /** Resolves to the errors. */
  async function compile(name: string, text: string): Promise<string> {
    const file = join(folder, `${name}.ts`)
    writeFileSync(file, text)
    const options = [
      '--noEmit',
      '--strict',
      '--target',
      'esnext',
      '--module',
      'nodenext',
      '--allowImportingTsExtensions',
    ]
    return run('tsc', [...options, '--types', 'node', '--typeRoots', resolve('node_modules/@types'), file])
  }
})

/** What the command printed, even if it fails. */
async function run(command: string, args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(resolve('node_modules/.bin', command), args, { cwd: tmpdir() }).catch(
    (error: { stdout: string }) => error,
  )
  return stdout
}
