// docs/examples/otel.mjs with ./startServer and a collector that takes OTLP over HTTP.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'
import { expect } from 'chai'
import { logIn } from '../support/factories.ts'
import { cleanUp, runStartServer } from '../support/startServer.ts'

interface Export {
  resourceSpans: {
    resource: { attributes: { key: string; value: { stringValue?: string } }[] }
    scopeSpans: { spans: { traceId: string; name: string }[] }[]
  }[]
}

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'

describe('docs/examples/otel.mjs', () => {
  const received: Export[] = []
  const collector = createServer(async (req, res) => {
    received.push((await json(req)) as Export)
    res.setHeader('Content-Type', 'application/json').end('{}')
  })

  before(async () => {
    collector.listen(0, '127.0.0.1')
    await once(collector, 'listening')
  })
  after(async () => {
    await cleanUp()
    collector.closeAllConnections()
    collector.close()
  })

  it('sends the spans of both services under their names, also the last ones of services that stop', async () => {
    const { port } = collector.address() as AddressInfo
    const env = {
      NODE_OPTIONS: `--import ${pathToFileURL('docs/examples/otel.mjs')}`,
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
    }
    const run = runStartServer({ env })
    const { business, auth } = await run.ready
    const headers = { token: await logIn(auth), traceparent: `00-${traceId}-00f067aa0ba902b7-01` }
    expect((await fetch(`${business}/data`, { headers })).status).to.equal(200)
    run.process.kill('SIGTERM')
    expect(await run.ended).to.equal(0)
    const found = received.flatMap(({ resourceSpans }) =>
      resourceSpans.flatMap(({ resource, scopeSpans }) => {
        const service = resource.attributes.find(({ key }) => key === 'service.name')?.value.stringValue
        const spans = scopeSpans.flatMap(({ spans }) => spans).filter(span => span.traceId === traceId)
        return spans.map(({ name }) => `${service}: ${name}`)
      }),
    )
    expect(found).to.have.members([
      'latchkey-business: GET /data',
      'latchkey-business: POST /validateToken',
      'latchkey-auth: POST /validateToken',
    ])
  })
})
