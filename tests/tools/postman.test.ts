// The Postman collection: complete, and run by newman against both services. Without the app, only the
// structure of the Flow can be checked.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { expect } from 'chai'
import newman, { type NewmanRunSummary } from 'newman'
import { parse } from 'yaml'
import { convertedFolder, fileNameOf, makeFlowFiles } from '../../tools/postmanFiles.ts'
import { adminKey, serviceKey } from '../support/credentials.ts'
import { cleanUp, runStartServer } from '../support/startServer.ts'

interface Item {
  id: string
  name: string
  item?: Item[]
  event?: { listen: string; script: { exec: string[] } }[]
  request?: {
    method: string
    description?: string
    auth?: { type: string }
    url: { raw: string; host: string[]; path: string[] }
    body?: { raw?: string; urlencoded?: { key: string; value: string }[] }
  }
  response?: { name: string; code: number; body: string }[]
}

const collectionFile = 'postman/Latchkey.postman_collection.json'
const environmentFile = 'postman/Latchkey local.postman_environment.json'
const collection = JSON.parse(readFileSync(collectionFile, 'utf8')) as { item: Item[]; variable: { key: string }[] }
const environment = JSON.parse(readFileSync(environmentFile, 'utf8')) as {
  values: Value[]
}
const keys = { serviceKey, adminKey }
const newmanMs = 240_000 // on a busy machine
const ttl = '10' // seconds: the last folder waits this long, and a busy machine needs a few seconds between two requests
const requests = collection.item.flatMap(({ item }) => item ?? [])

describe('the Postman collection', () => {
  after(cleanUp)

  // Start all runs at the same time, because each spends most of its time waiting for tokens to expire.
  let everything: Promise<NewmanResult>
  let withoutKeys: Promise<NewmanResult>
  let oneAddress: Promise<NewmanResult>

  before(() => {
    const env = { TOKEN_TTL_SECONDS: ttl }
    everything = runStartServer({ env: { ...env, KEY_USAGE_DAYS: '1' } }).ready.then(addresses =>
      runNewman({ ...addresses, ...keys }),
    )
    withoutKeys = runStartServer({ env }).ready.then(runNewman)
    oneAddress = runStartServer({ env: { ...env, PORT: '0', HOST: '127.0.0.1' } }).ready.then(({ business }) =>
      runNewman({ business, auth: business, authInternal: '', ...keys }),
    )
    for (const run of [everything, withoutKeys, oneAddress]) run.catch(() => {}) // the test that awaits the run reports its error
  })

  it('passes in newman against the real pair, from the first request to the last', async function () {
    this.timeout(newmanMs)
    const { failures, stats, executed } = await everything
    expect(failures).to.deep.equal([])
    expect([...new Set(executed)]).to.have.members(requests.map(({ name }) => name))
    expect(stats.assertions.total).to.be.at.least(requests.length)
  })

  it('passes in newman with the environment as shipped: without a key, requests that need one are skipped', async function () {
    this.timeout(newmanMs)
    const { failures, passed, executed } = await withoutKeys
    expect(failures).to.deep.equal([])
    const needing = requests.filter(({ request }) => /serviceKey|adminKey/.test(JSON.stringify(request?.auth)))
    expect(needing).to.have.length.above(10)
    for (const { name } of needing) expect(executed).to.not.include(name)
    expect(passed).to.be.above(100)
  })

  it('passes in newman if one address serves both services and the internal listener is out of reach', async function () {
    this.timeout(newmanMs)
    const { failures, stats, executed } = await oneAddress
    expect(failures).to.deep.equal([])
    expect(stats.requests.total).to.be.above(50)
    expect(executed.filter(name => /Validate|Issue|Metrics/.test(name)).length).to.be.below(3)
  })

  it('describes and tests every request', () => {
    for (const { name, request, event } of requests) {
      expect(request?.description, name).to.match(/\w/)
      expect(event?.find(({ listen }) => listen === 'test')?.script.exec.join('\n'), name).to.include('pm.test(')
    }
  })

  it('has saved examples for every route, and each body parses', () => {
    const routes = new Set(requests.map(({ request }) => request?.url.path.join('/')))
    const shown = requests.filter(({ response = [] }) => response.length > 0)
    const withoutProse = ['health', 'ready', 'nowhere', 'metrics', 'openapi.json']
    expect([...new Set(shown.map(({ request }) => request?.url.path.join('/'))), ...withoutProse]).to.have.members([
      ...routes,
    ])
    for (const { response = [] } of shown) for (const { body } of response) if (body) JSON.parse(body)
  })

  it('has a request for every route of docs/http-api.md except pages, streams, shadow rules and routes of the JWT format', () => {
    const documented = [...readFileSync('docs/http-api.md', 'utf8').matchAll(/^\| `([A-Z]+) \/(\S*)`/gm)]
    const routes = documented.map(([, method, path]) =>
      `${method} /${path}`.replace('ANY', 'GET').replace('/{*path}', ''),
    )
    const shape = (route: string) =>
      route.replace(/(\/admin\/users|\/sessions|\/keys|\/tokens)\/(?!expired|delegate)[^/\s]+/, '$1/:id')
    const sent = requests.map(({ request }) => shape(`${request?.method} /${request?.url.path.join('/')}`))
    const missing = [...new Set(routes)].filter(route => !sent.includes(route))
    const pages = [
      '/',
      '/docs',
      '/redoc',
      '/docs/:file',
      '/console',
      '/console/:file',
      '/account',
      '/problems/:code',
      '/.well-known/jwks.json',
    ]
    expect(
      missing.filter(route => ![...pages, '/events', '/data/live', '/shadowRules'].includes(route.replace('GET ', ''))),
    ).to.deep.equal([])
  })

  it('uses only variables that it or the environment defines, and every id once', () => {
    const known = [...collection.variable, ...environment.values].map(({ key }) => key)
    const used = [...JSON.stringify(collection).matchAll(/\{\{(\w+)\}\}/g)].map(([, name]) => name as string)
    expect(known).to.include.members([...new Set(used)])
    const ids = requests.map(({ id }) => id)
    expect(new Set(ids).size).to.equal(ids.length)
  })

  it('ships no keys', () => {
    for (const name of ['serviceKey', 'adminKey']) {
      expect(environment.values.find(({ key }) => key === name)).to.include({ type: 'secret', value: '' })
    }
  })

  it('has environments for local, compose and Heroku with the same variables, the last two without secrets', () => {
    for (const place of ['compose', 'Heroku']) {
      const { name, values } = readJson<{ name: string; values: Value[] }>(fileOf(place))
      expect(name).to.equal(`Latchkey ${place}`)
      expect(values.map(({ key, type }) => [key, type])).to.deep.equal(environment.values.map(v => [v.key, v.type]))
      for (const { type, value } of values) if (type === 'secret') expect(value).to.equal('')
      expect(values.find(({ key }) => key === 'authInternalUrl')?.value).to.equal('')
    }
  })
})

describe('the collection for the Local View', () => {
  interface Converted {
    url: string
    method: string
    description?: string
    auth?: { type: string }
    body?: { content?: string | Record<string, string> }
    scripts?: { code: string }[]
  }
  const read = (path: string) => parse(readFileSync(path, 'utf8'))
  const lines = (text = '') => text.split('\n').map(line => line.trimEnd())
  const contentOf = ({ raw, urlencoded = [] }: { raw?: string; urlencoded?: { key: string; value: string }[] }) =>
    raw ?? Object.fromEntries(urlencoded.map(({ key, value }) => [key, value]))
  const folderOf = ({ name }: Item) => `${convertedFolder}/${fileNameOf(name)}`

  for (const folder of collection.item) {
    it(`is that of version 2.1: ${folder.name}`, () => {
      const own = folder.item ?? []
      const files = readdirSync(folderOf(folder)).filter(name => name.endsWith('.request.yaml'))
      expect(files).to.have.members(own.map(({ name }) => `${fileNameOf(name)}.request.yaml`))
      for (const { name, request, event = [], response = [] } of own) {
        const converted = read(`${folderOf(folder)}/${fileNameOf(name)}.request.yaml`) as Converted
        expect(converted.url, name).to.equal(request?.url.raw)
        expect(converted.method, name).to.equal(request?.method)
        expect(converted.description, name).to.equal(request?.description)
        expect(converted.auth?.type, name).to.equal(request?.auth?.type)
        expect(converted.body?.content, name).to.deep.equal(request?.body && contentOf(request.body))
        const scripts = (converted.scripts ?? []).map(({ code }) => lines(code))
        expect(scripts, name).to.deep.equal(event.map(({ script }) => script.exec.flatMap(lines)))
        const examples = `${folderOf(folder)}/.resources/${fileNameOf(name)}.resources/examples`
        for (const { name: title, code, body } of response) {
          const example = read(`${examples}/${fileNameOf(title)}.example.yaml`) as {
            response: { statusCode: number; body?: { content: string } }
          }
          expect(example.response.statusCode, `${name}: ${title}`).to.equal(code)
          expect(example.response.body?.content ?? '', `${name}: ${title}`).to.equal(body ?? '')
        }
        expect(existsSync(examples) ? readdirSync(examples) : [], name).to.have.length(response.length)
      }
    })
  }

  it('has no other folder', () => {
    const folders = readdirSync(convertedFolder).filter(name => name !== '.resources')
    expect(folders).to.have.members(collection.item.map(({ name }) => fileNameOf(name)))
  })
})

describe('the Postman Flow', () => {
  const [flowFile = ''] = readdirSync('postman/flows').map(name => `postman/flows/${name}`)
  const text = readFileSync(flowFile, 'utf8')
  const { flow, ...file } = JSON.parse(text) as { name: string; version: number; flow: Flow }
  const blocks = Object.entries(flow.nodes)
  const requestBlocks = blocks.filter(([, { type }]) => type === 'task/http-request@2')

  it('is what tools/postmanFiles.ts generates from the collection', () => {
    for (const [path, content] of makeFlowFiles()) expect(readFileSync(path, 'utf8'), path).to.equal(content)
  })

  it('has only members that files of the app have, and does not claim to be exported by the app', () => {
    expect(text).not.to.include('_postman_exported_')
    expect(file).to.have.all.keys('version', 'name', 'description', 'lockbox', 'info')
    expect(blocks.map(([, { type }]) => type)).to.have.members([
      'ev/endpoint@3',
      ...requestBlocks.map(() => 'task/http-request@2'),
    ])
    for (const [id] of [...blocks, ...Object.entries(flow.connections)]) expect(id).to.match(/^[\w-]{8}$/)
  })

  it('refers to requests and to an environment that exist', () => {
    for (const [, { config }] of requestBlocks) {
      expect(existsSync(config.element?.path as string), config.element?.path).to.equal(true)
      expect(existsSync(config.environment as string)).to.equal(true)
      expect(config).to.include({ ignoreTestResults: false, scriptsModifyEnvVars: true })
      const request = parse(readFileSync(config.element?.path as string, 'utf8')) as { method: string }
      expect(request.method).to.equal(config.element?.method)
    }
  })

  it('is one row: ids are unique, connections join blocks, and every block is reached from the start', () => {
    const ids = [...text.matchAll(/^ {6}"([\w-]{8})": \{$/gm)].map(([, id]) => id)
    expect(new Set(ids).size).to.equal(ids.length)
    expect(ids).to.have.length(blocks.length + Object.keys(flow.connections).length)
    const reached = new Set(blocks.filter(([, { type }]) => type === 'ev/endpoint@3').map(([id]) => id))
    expect(reached.size).to.equal(1)
    for (const { source, sourcePort, target, targetPort } of Object.values(flow.connections)) {
      expect([...(flow.nodes[source] ? [] : [source]), ...(flow.nodes[target] ? [] : [target])]).to.deep.equal([])
      expect(sourcePort).to.equal(flow.nodes[source]?.type === 'ev/endpoint@3' ? 'data' : 'success')
      expect(targetPort).to.equal('AI')
      expect(reached.has(source) && !reached.has(target)).to.equal(true)
      reached.add(target)
    }
    expect([...reached]).to.have.members(blocks.map(([id]) => id))
  })
})

interface Value {
  key: string
  type: string
  value: string
}

interface Flow {
  nodes: Record<
    string,
    { type: string; config: { element?: { name: string; method: string; path: string }; environment?: string } }
  >
  connections: Record<string, { source: string; sourcePort: string; target: string; targetPort: string }>
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T
}

function fileOf(place: string): string {
  return `postman/Latchkey ${place}.postman_environment.json`
}

type NewmanResult = Awaited<ReturnType<typeof runNewman>>

/** Without keys, the key variables are empty, as in the environment file. */
async function runNewman({
  business: businessUrl,
  auth: authUrl,
  authInternal: authInternalUrl,
  ...keys
}: Record<'business' | 'auth' | 'authInternal', string> & Partial<Record<'serviceKey' | 'adminKey', string>>) {
  const values = { businessUrl, authUrl, authInternalUrl, ...keys }
  const { run } = await new Promise<NewmanRunSummary>((resolve, reject) => {
    newman.run(
      {
        collection: collectionFile,
        environment: environmentFile,
        envVar: Object.entries(values).map(([key, value]) => ({ key, value })),
        reporters: [],
      },
      (error, summary) => (error ? reject(error) : resolve(summary)),
    )
  })
  return {
    failures: run.failures.map(({ source, error }) => `${source?.name}: ${error.test ?? ''} ${error.message}`),
    stats: run.stats,
    /** Names of the requests that were sent. A skipped one has no answer. */
    executed: run.executions.filter(({ response }) => response !== undefined).map(({ item }) => item.name),
    passed: (run.stats.assertions.total ?? 0) - (run.stats.assertions.failed ?? 0),
  }
}
