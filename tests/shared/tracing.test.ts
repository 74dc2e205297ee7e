// Spans of both services, with a real SDK that keeps them in memory.
import { setImmediate as turn } from 'node:timers/promises'
import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import {
  AlwaysOnSampler,
  InMemorySpanExporter,
  ParentBasedSampler,
  type ReadableSpan,
  type Sampler,
  SimpleSpanProcessor,
  TracerProvider,
} from '@opentelemetry/sdk-trace'
import { expect } from 'chai'
import { createListener } from '../../shared/http/listener.ts'
import { post } from '../support/client.ts'
import { stopChecking } from '../support/conformance.ts'
import { demo, serviceKey } from '../support/credentials.ts'
import { logIn } from '../support/factories.ts'
import { behaveWell, hold, startFakeAuth } from '../support/fakeAuth.ts'
import { collectLog } from '../support/log.ts'
import { sendRaw } from '../support/raw.ts'
import { closeServers, startAuth, startBusiness } from '../support/servers.ts'
import { until } from '../support/until.ts'

const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'
const parentId = '00f067aa0ba902b7'
const traceparent = `00-${traceId}-${parentId}-01`

const exporter = new InMemorySpanExporter()

type Headers = Record<string, string>

let started = 0
/** Counts the requests that have begun, sampled or not. */
const counting: Sampler = {
  shouldSample(parent, traceId, name, kind, attributes, links) {
    if (attributes['latchkey.listener'] === 'business') started++
    return sampler.shouldSample(parent, traceId, name, kind, attributes, links)
  },
  toString: () => 'counting',
}
const sampler = new ParentBasedSampler({ root: new AlwaysOnSampler() })

/** As an operator's own file does before the services start. */
function register(): void {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager())
  trace.setGlobalTracerProvider(
    new TracerProvider({ sampler: counting, spanProcessors: [new SimpleSpanProcessor({ exporter })] }),
  )
}

function unregister(): void {
  for (const api of [trace, context]) api.disable()
  exporter.reset()
}

/** The spans of these names, in the order of their ends, once there are so many. */
function spansOf(name: string, count = 1): Promise<ReadableSpan[]> {
  return until(() => {
    const found = exporter.getFinishedSpans().filter(span => span.name === name)
    return found.length >= count && found
  })
}
const idOf = (span: ReadableSpan | undefined) => span?.spanContext().spanId
const linksOf = (span: ReadableSpan) => span.links.map(({ context }) => context.spanId)

describe('tracing with an SDK', () => {
  let auth: Awaited<ReturnType<typeof startAuth>>
  let business: Awaited<ReturnType<typeof startBusiness>>
  let token: string

  before(async () => {
    register()
    auth = await startAuth()
    business = await startBusiness(auth.internalUrl)
    token = await logIn(auth.url)
  })
  beforeEach(() => exporter.reset())
  after(async () => {
    await closeServers()
    unregister()
  })

  it('continues the trace of the client through Business, the call and Auth', async () => {
    expect((await fetch(`${business.url}/data?a=b`, { headers: { token, traceparent } })).status).to.equal(200)
    const [data] = await spansOf('GET /data')
    const [call, validation] = await spansOf('POST /validateToken', 2).then(spans => [
      spans.find(({ kind }) => kind === 2),
      spans.find(({ kind }) => kind === 1),
    ])
    expect([data, call, validation].map(span => span?.spanContext().traceId)).to.deep.equal(Array(3).fill(traceId))
    expect(data?.parentSpanContext?.spanId).to.equal(parentId)
    expect(call?.parentSpanContext?.spanId).to.equal(idOf(data))
    expect(validation?.parentSpanContext?.spanId).to.equal(idOf(call))
    expect(data?.attributes).to.deep.include({
      'http.request.method': 'GET',
      'http.route': '/data',
      'http.response.status_code': 200,
      'url.path': '/data',
      'url.scheme': 'http',
      'latchkey.listener': 'business',
    })
    expect(call?.attributes).to.deep.equal({
      'http.request.method': 'POST',
      'url.template': '/validateToken',
      'server.address': '127.0.0.1',
      'server.port': Number(new URL(auth.internalUrl).port),
      'latchkey.batch.size': 1,
    })
    expect(call?.links).to.deep.equal([])
    expect(validation?.attributes['latchkey.listener']).to.equal('authInternal')
  })

  /** Three requests that share a call, because two calls before them are not answered yet. */
  async function shareCall(headers: [Headers, Headers, Headers]) {
    const fake = await startFakeAuth()
    fake.behave(hold)
    const { url } = await startBusiness(fake.url)
    const ask = (own: Headers) => fetch(`${url}/data`, { headers: { token: 'good', ...own } })
    const answers = [ask({})]
    await until(() => fake.calls.length === 1)
    answers.push(ask({}))
    await until(() => fake.calls.length === 2)
    started = 0
    for (const [i, own] of headers.entries()) {
      answers.push(ask(own))
      await until(() => started === i + 1)
    }
    await turn()
    fake.behave(behaveWell)
    for (const call of fake.calls.slice()) call.reply()
    await Promise.all(answers)
    await fake.stop()
    const calls = await spansOf('POST /validateToken', 3)
    return calls.find(({ attributes }) => attributes['latchkey.batch.size'] === 3) as ReadableSpan
  }

  it('links a call with every request that shares it, in both directions', async () => {
    const call = await shareCall([{ 'x-request-id': 'r1' }, { 'x-request-id': 'r2' }, { 'x-request-id': 'r3' }])
    const requests = await spansOf('GET /data', 5)
    const [first, ...others] = ['r1', 'r2', 'r3'].map(
      id => requests.find(({ attributes }) => attributes['latchkey.request_id'] === id) as ReadableSpan,
    )
    expect(call.parentSpanContext?.spanId).to.equal(idOf(first))
    expect(linksOf(call)).to.deep.equal(others.map(idOf))
    for (const other of others) expect(linksOf(other)).to.deep.equal([idOf(call)])
    expect(new Set(requests.map(span => span.spanContext().traceId)).size).to.equal(5)
  })

  it('puts the call into the trace of a sampled request, even if the first one is not sampled', async () => {
    const unsampled = { traceparent: `00-${'1'.repeat(32)}-${parentId}-00` }
    const call = await shareCall([unsampled, { traceparent }, unsampled])
    const requests = await spansOf('GET /data', 3)
    const own = requests.find(span => span.spanContext().traceId === traceId)
    expect(requests).to.have.length(3)
    expect(call.parentSpanContext?.spanId).to.equal(idOf(own))
    expect(call.links).to.deep.equal([])
  })

  it('creates no span in either service if the client has decided against sampling', async () => {
    await fetch(`${business.url}/data`, { headers: { token, traceparent: traceparent.replace(/01$/, '00') } })
    await fetch(`${business.url}/health`)
    await spansOf('GET /health')
    expect(exporter.getFinishedSpans()).to.have.length(1)
  })

  it('continues the trace in Auth if Business forwards the request', async () => {
    const single = await startBusiness(auth.internalUrl, { AUTH_PUBLIC_URL: auth.url })
    stopChecking() // Business forwards routes that its own document does not have
    await post(`${single.url}/login`, demo, { traceparent })
    const [inner, outer] = [(await spansOf('POST /login'))[0], (await spansOf('POST /{*path}'))[0]]
    expect(outer?.parentSpanContext?.spanId).to.equal(parentId)
    expect(inner?.parentSpanContext?.spanId).to.equal(idOf(outer))
  })

  it('gives a log line the id of its trace, also if the client has sent none', async () => {
    await fetch(`${business.url}/data`, { headers: { token, 'x-request-id': 'own' } })
    const [span] = await spansOf('GET /data')
    const line = business.lines.find(({ event, requestId }) => event === 'request' && requestId === 'own')
    expect(line?.['traceId']).to.equal(span?.spanContext().traceId)
  })

  it('marks responses of 500 and above as errors, and calls that failed', async () => {
    const alone = await startBusiness('http://127.0.0.1:9')
    expect((await fetch(`${alone.url}/data`, { headers: { token } })).status).to.equal(503)
    expect((await fetch(`${alone.url}/data`)).status).to.equal(401)
    const [failed, refused] = await spansOf('GET /data', 2)
    expect(failed?.status.code).to.equal(2)
    expect(failed?.attributes).to.include({ 'http.response.status_code': 503, 'error.type': '503' })
    expect(refused?.status.code).to.equal(0)
    expect((await spansOf('POST /validateToken'))[0]?.status.code).to.equal(2)
  })

  it('names a span without its path if no route matches, and _OTHER for methods that the conventions do not have', async () => {
    await fetch(`${auth.url}/made/up`)
    await sendRaw(auth.url, 'PROPFIND /data HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    expect((await spansOf('GET'))[0]?.attributes).to.not.have.property('http.route')
    expect((await spansOf('HTTP'))[0]?.attributes['http.request.method']).to.equal('_OTHER')
  })

  it('answers and records a target that is no path, as without an SDK', async () => {
    const { status } = await sendRaw(auth.url, 'GET //[ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    expect(status).to.be.within(400, 404)
    await spansOf('GET')
  })

  it('puts no token, key, username or query into a span', async () => {
    const secret = 'k'.repeat(30)
    await post(`${auth.url}/login`, demo)
    await post(`${auth.url}/login`, { ...demo, password: 'wrong' })
    await fetch(`${business.url}/data?token=${token}`, { headers: { token } })
    await fetch(`${business.url}/data/${token}?key=${secret}`, { headers: { authorization: `Bearer ${token}` } })
    await fetch(`${auth.internalUrl}/tokens/expired`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${serviceKey}` },
    })
    await spansOf('DELETE /tokens/expired')
    const text = JSON.stringify(
      exporter.getFinishedSpans().map(({ name, attributes, events, links, status }) => ({
        ...{ name, attributes, events, links, status },
      })),
    )
    for (const part of [token, token.slice(3), secret, serviceKey, demo.username, demo.password, 'wrong', '?']) {
      expect(text).to.not.include(part)
    }
  })

  it('makes the span of a request the parent of the spans that its handler starts, as a database driver does', async () => {
    const { log } = collectLog('test')
    const handler = async (ctx: { body: unknown }) => {
      await Promise.resolve()
      trace.getTracer('driver').startSpan('query').end()
      ctx.body = {}
    }
    const listener = createListener(
      { 'GET /rows': [handler] },
      { name: 'test', portSetting: 'PORT', log, accessLog: 'off', monotonicNow: () => performance.now() },
    )
    const url = await listener.listen(0, '127.0.0.1')
    await fetch(`${url}/rows`)
    await listener.close({ lameDuckMs: 0, drainMs: 100 })
    const [query] = await spansOf('query')
    expect(query?.parentSpanContext?.spanId).to.equal(idOf((await spansOf('GET /rows'))[0]))
  })
})

describe('tracing with an SDK that was registered too late', () => {
  after(async () => {
    await closeServers()
    unregister()
  })

  it('does not happen, and the traceparent of the client reaches Auth unchanged', async () => {
    const auth = await startAuth()
    const business = await startBusiness(auth.internalUrl)
    register()
    const token = await logIn(auth.url)
    await fetch(`${business.url}/data`, { headers: { token, traceparent } })
    const lines = auth.lines.filter(line => line.event === 'request' && line['path'] === '/validateToken')
    expect(lines.map(line => line['traceId'])).to.deep.equal([traceId])
    expect(exporter.getFinishedSpans()).to.deep.equal([])
  })
})
