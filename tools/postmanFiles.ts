// Writes the files that Postman's Local View opens: the collection in the format of version 3, one file for each request and
// example, the local environment, and a Flow. Run `npm run postman-files` when the collection or the environment has changed.
// Postman's own command line converts the collection. The format of a Flow is known only from files that the app wrote: see
// postman/README.md.
import { execFileSync } from 'node:child_process'
import { hash } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { readArguments } from '../commands/arguments.ts'

interface Item {
  name: string
  description: string
  item: Item[]
  request: { method: string }
}

interface Collection {
  item: Item[]
}

interface PostmanEnvironment {
  name: string
  values: { key: string; value: string; type: string; enabled: boolean }[]
}

const converter = 'postman-cli@1.34.0' // not a dependency, since it has 240 MB
const collectionFile = 'postman/Latchkey.postman_collection.json'
export const convertedFolder = 'postman/collections/Latchkey'
const environmentFile = 'postman/environments/Latchkey local.environment.yaml'
const flowFile = 'postman/flows/Log in, get data, log out.flow'
/** The requests of the blocks in order, each by the beginning of its name. Data is fetched twice, to show that the token slides. */
const steps = ['Flow 1', 'Flow 2', 'Flow 2', 'Flow 3', 'Flow 4', 'Flow 5']

/** Path -> content of each file that is not converted. */
export function makeFlowFiles(): Map<string, string> {
  const collection = readJson<Collection>(collectionFile)
  const environment = readJson<PostmanEnvironment>('postman/Latchkey local.postman_environment.json')
  const chain = collection.item.find(({ name }) => name.startsWith('Flow')) as Item
  const chosen = steps.map(step => chain.item.find(({ name }) => name.startsWith(step)) as Item)
  const blocks = chosen.map(({ name, request }) => {
    return { name, method: request.method, path: `${convertedFolder}/${fileNameOf(chain.name)}/${name}.request.yaml` }
  })
  return new Map([
    [environmentFile, stringify({ name: environment.name, values: environment.values }, { lineWidth: 0 })],
    [flowFile, `${JSON.stringify(makeFlow(chain.name, chain.description, blocks), null, 2)}\n`],
  ])
}

/** The name of the file or folder that Postman gives to a request, a folder or an example. */
export function fileNameOf(name: string): string {
  return name.replace(/[:?/\\*"<>|]/g, '-')
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T
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

function convert(): void {
  mkdirSync(dirname(convertedFolder), { recursive: true })
  const command = ['--yes', converter, 'collection', 'migrate', collectionFile, '--output', convertedFolder]
  execFileSync('npx', command, { stdio: ['ignore', 'ignore', 'inherit'] })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  readArguments(
    `Usage: npm run postman-files

Writes the files of Postman's Local View in postman/ from the collection and the local environment. Downloads ${converter}.`,
    {},
  )
  for (const path of ['collections', 'environments', 'flows']) {
    rmSync(`postman/${path}`, { recursive: true, force: true })
  }
  convert()
  for (const [path, content] of makeFlowFiles()) {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, content)
  }
}
