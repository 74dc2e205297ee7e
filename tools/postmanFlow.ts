// Writes the files that Postman's Local View opens: the requests in the folder "Flow: …" of the collection, one file
// each, the local environment, and a Flow of these requests. Run `node tools/postmanFlow.ts` by hand when that folder changes.
// The format of a Flow is known only from files that the app wrote: see postman/README.md.
import { hash } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { readArguments } from '../commands/arguments.ts'

interface Item {
  id: string
  name: string
  description: string
  item: Item[]
  event: { script: { exec: string[] } }[]
  request: {
    method: string
    url: { raw: string }
    description: string
    body?: { raw: string }
    auth: { type: string; bearer?: { value: string }[] }
  }
}

interface Collection {
  info: { _postman_id: string; name: string }
  item: Item[]
}

interface PostmanEnvironment {
  name: string
  values: { key: string; value: string; type: string; enabled: boolean }[]
}

const root = 'postman/collections/Latchkey'
const folder = 'Flow'
const environmentFile = 'postman/environments/Latchkey local.environment.yaml'
const flowFile = 'postman/flows/Log in, get data, log out.flow'
/** The requests of the blocks in order, each by the beginning of its name. Data is fetched twice, to show that the token slides. */
const steps = ['Flow 1', 'Flow 2', 'Flow 2', 'Flow 3', 'Flow 4', 'Flow 5']

/** Path -> content of each file. */
export function makeFlowFiles(): Map<string, string> {
  const collection = readJson<Collection>('postman/Latchkey.postman_collection.json')
  const environment = readJson<PostmanEnvironment>('postman/Latchkey local.postman_environment.json')
  const chain = collection.item.find(({ name }) => name.startsWith('Flow')) as Item
  const pathOf = ({ name }: Item) => `${root}/${folder}/${name}.request.yaml`
  const definition = (content: object) => toYaml({ $kind: 'collection', ...content })
  const { name: title, info } = { name: chain.name, ...collection }

  const files = new Map<string, string>([
    [`${root}/.resources/definition.yaml`, definition({ id: info._postman_id, name: info.name })],
    [
      `${root}/${folder}/.resources/definition.yaml`,
      definition({ id: chain.id, name: title, description: chain.description, order: 1000 }),
    ],
    [environmentFile, toYaml({ name: environment.name, values: environment.values })],
  ])
  for (const [index, item] of chain.item.entries()) files.set(pathOf(item), requestYaml(item, (index + 1) * 1000))
  const chosen = steps.map(step => chain.item.find(({ name }) => name.startsWith(step)) as Item)
  const blocks = chosen.map(item => ({ name: item.name, method: item.request.method, path: pathOf(item) }))
  files.set(flowFile, `${JSON.stringify(makeFlow(title, chain.description, blocks), null, 2)}\n`)
  return files
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T
}

function toYaml(content: object): string {
  return stringify(content, { lineWidth: 0 })
}

function requestYaml({ id, name, event, request }: Item, order: number): string {
  const { method, url, description, body, auth } = request
  const [bearer] = auth.bearer ?? []
  return toYaml({
    $kind: 'http-request',
    id,
    name,
    description,
    url: url.raw,
    method,
    ...(body && { body: { type: 'json', content: body.raw } }),
    auth: { type: auth.type, ...(bearer && { credentials: { token: bearer.value } }) },
    scripts: event.map(({ script }) => ({
      type: 'afterResponse',
      code: script.exec.join('\n'),
      language: 'text/javascript',
    })),
    order,
  })
}

/** A start and the blocks in a row. Uses only members that occur in files written by the app. */
function makeFlow(name: string, description: string, blocks: { name: string; method: string; path: string }[]) {
  const start = {
    type: 'ev/endpoint@3',
    pos: { x: 0, y: 0 },
    config: { inputs: [], data: '', language: 'json', allowAnyType: false, inputs__expanded: true },
    ui: { data: { triggerType: 'ev/endpoint@3' }, namedInputsExpanded: true },
  }
  const ids = ['start', ...blocks.map(({ path }, index) => `${index} ${path}`)].map(idOf)
  const requests = blocks.map((element, index) => ({
    type: 'task/http-request@2',
    pos: { x: (index + 1) * 400, y: 0 },
    config: {
      element,
      environment: environmentFile,
      parseBody: 'auto',
      requestVariables: [],
      scriptsModifyEnvVars: true,
      ignoreTestResults: false,
      trackGlobalEnvironment: true,
      requestVariables__expanded: true,
    },
    ui: { data: {}, namedInputsExpanded: true },
  }))
  const connections = ids.slice(1).map((target, index) => {
    const source = ids[index] as string
    const sourcePort = index === 0 ? 'data' : 'success'
    return [idOf(`${source} ${target}`), { source, sourcePort, target, targetPort: 'AI' }]
  })
  return {
    version: 1,
    name,
    description,
    flow: {
      description: '',
      nodes: Object.fromEntries([start, ...requests].map((node, index) => [ids[index], node])),
      connections: Object.fromEntries(connections),
      annotations: {},
      groups: {},
      webhook: { payloadContent: 'body-only', responseType: 'default' },
      forms: {},
      modules: {},
      io: {},
      ports: {},
      meta: {},
      scenes: {},
      scenarios: {},
      config: { definitions: {}, constants: {} },
    },
    lockbox: {},
    info: { _postman_id: '6a2b1f0e-5d1c-4c0b-9a53-1f6f1d1f7a10' },
  }
}

/** Eight characters, the same in every run, so that a changed Flow gives a small diff. */
function idOf(text: string): string {
  return hash('sha256', text, 'base64url').slice(0, 8)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  readArguments(
    'Usage: commands/node tools/postmanFlow.ts\n\nWrites the files of Postman’s flow in postman/ from the collection.',
    {},
  )
  const files = makeFlowFiles()
  for (const path of ['collections', 'environments', 'flows'])
    rmSync(`postman/${path}`, { recursive: true, force: true })
  for (const [path, content] of files) {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, content)
    console.log(path)
  }
}
