// The Postman collection: complete in itself, and run by newman against the real pair.
import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import newman, { type NewmanRunSummary } from 'newman'
import { adminKey, serviceKey } from './support/servers.ts'
import { cleanUp, runStartServer } from './support/startServer.ts'

interface Item {
  id: string
  name: string
  item?: Item[]
  event?: { listen: string; script: { exec: string[] } }[]
  request?: { description?: string; url: { raw: string; host: string[]; path: string[] } }
  response?: { name: string; code: number; body: string }[]
}

const collectionFile = 'postman/Latchkey.postman_collection.json'
const environmentFile = 'postman/Latchkey local.postman_environment.json'
const collection = JSON.parse(readFileSync(collectionFile, 'utf8')) as { item: Item[]; variable: { key: string }[] }
const environment = JSON.parse(readFileSync(environmentFile, 'utf8')) as {
  values: { key: string; type: string; value: string }[]
}
const requests = collection.item.flatMap(({ item }) => item ?? [])

describe('the Postman collection', function () {
  this.timeout(60_000)
  after(cleanUp)

  it('passes in newman against the real pair, from the first request to the last', async () => {
    const run = runStartServer({ env: { TOKEN_TTL_SECONDS: '2' } })
    const { business, auth, authInternal } = await run.ready
    const values = { businessUrl: business, authUrl: auth, authInternalUrl: authInternal, serviceKey, adminKey }
    const summary = await new Promise<NewmanRunSummary>((resolve, reject) => {
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
    const failures = summary.run.failures.map(
      ({ source, error }) => `${source?.name}: ${error.test ?? ''} ${error.message}`,
    )
    expect(failures).to.deep.equal([])
    expect(summary.run.stats.requests.total).to.equal(requests.length)
    expect(summary.run.stats.assertions.total).to.be.at.least(requests.length)
  })

  it('says of every request what it shows, and tests it', () => {
    for (const { name, request, event } of requests) {
      expect(request?.description, name).to.match(/\w/)
      expect(event?.find(({ listen }) => listen === 'test')?.script.exec.join('\n'), name).to.include('pm.test(')
    }
  })

  it('has saved examples for every route, each a body that parses', () => {
    const routes = new Set(requests.map(({ request }) => request?.url.path.join('/')))
    const shown = requests.filter(({ response = [] }) => response.length > 0)
    const withoutProse = ['health', 'ready', 'nowhere']
    expect([...new Set(shown.map(({ request }) => request?.url.path.join('/'))), ...withoutProse]).to.have.members([
      ...routes,
    ])
    for (const { response = [] } of shown) for (const { body } of response) if (body) JSON.parse(body)
  })

  it('uses no variable that neither it nor the environment has, and every id once', () => {
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
})
