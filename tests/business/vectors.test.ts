// The conformance vectors about single requests, played to Business: what a client of Business sees while Auth misbehaves.
import { once } from 'node:events'
import { connect } from 'node:net'
import { text as readText } from 'node:stream/consumers'
import { expect } from 'chai'
import {
  type ClientAnswer,
  type ClientUnderTest,
  type HeaderLines,
  openVectorRunner,
  type VectorRunner,
} from '../../tools/conformance/runVector.ts'
import { loadVectors } from '../../tools/conformance/vectors.ts'
import { serviceKey } from '../support/credentials.ts'
import { parseAnswer } from '../support/raw.ts'
import { closeServers, startBusiness } from '../support/servers.ts'
import { slackMs } from '../support/slack.ts'

/** Checks what every answer of Business has, and returns it. */
function readAnswer(bytes: string): ClientAnswer {
  const { status, headers, body } = parseAnswer(bytes)
  expect(headers.get('cache-control')).to.equal('no-store')
  const answer = { status, headers: Object.fromEntries(headers) }
  for (const [name, value] of Object.entries(answer.headers)) answer.headers[name] = value.trim()
  if (status === 200) {
    expect(answer.headers['content-type']).to.match(/^application\/json\b/)
    expect(JSON.parse(body).data).to.match(/^Hello, .+!$/s)
    return answer
  }
  const problem = JSON.parse(body) as Record<string, unknown>
  expect(answer.headers['content-type']).to.equal('application/problem+json')
  expect(problem).to.include({
    type: `/problems/${problem['error']}`,
    status,
    requestId: answer.headers['x-request-id'],
  })
  expect(problem).to.have.keys('type', 'title', 'status', 'detail', 'error', 'requestId')
  return { ...answer, problem }
}

/** Sends one GET /data per request, each on its own connection, all in one turn of the event loop. */
async function getTogether(url: string, requests: HeaderLines[]): Promise<ClientAnswer[]> {
  const { hostname, port } = new URL(url)
  const sockets = requests.map(() => connect({ host: hostname, port: Number(port) }))
  // Wait for one answer on each connection first, because Node accepts only one connection per turn of the event loop.
  for (const socket of sockets) socket.write('GET /health HTTP/1.1\r\nHost: x\r\n\r\n')
  await Promise.all(sockets.map(socket => once(socket, 'data')))
  for (const [i, headers] of requests.entries()) {
    const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`)
    sockets[i]?.write(`GET /data HTTP/1.1\r\nHost: x\r\n${lines.join('')}Connection: close\r\n\r\n`, 'latin1')
  }
  return (await Promise.all(sockets.map(socket => readText(socket)))).map(readAnswer)
}

describe('Business', () => {
  let runner: VectorRunner
  let url: string | null = null
  let lines: object[] = []

  const client: ClientUnderTest = {
    async open(auth) {
      if (url === null) ({ url, lines } = await startBusiness(auth.url))
    },
    send(requests) {
      const answers = getTogether(
        url as string,
        requests.map(({ headers }) => headers),
      )
      return requests.map(async (_, i) => (await answers)[i] as ClientAnswer)
    },
  }

  before(async () => {
    runner = await openVectorRunner({ key: serviceKey, slackMs })
  })
  after(async () => {
    await closeServers()
    await runner.close()
  })

  for (const [file, vectors] of loadVectors()) {
    // The others need results that arrive one by one, or other routes.
    if (!['answers', 'requests', 'verdicts'].includes(file)) continue
    for (const { title, ...vector } of vectors) {
      it(`obeys ${file}.json: ${title}`, async () => {
        expect(await runner.run({ title, ...vector }, client)).to.deep.equal([])
      })
    }
  }

  it('has logged neither a token nor the key', () => {
    const log = JSON.stringify(lines)
    expect(log).to.include('auth_unavailable')
    expect(log).not.to.include('good-secret')
    expect(log).not.to.include(serviceKey)
  })
})
