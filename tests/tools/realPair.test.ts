// No request can end a process that ./startServer started, in either layout, with and without TLS.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { expect } from 'chai'
import { type Certificate, makeCertificate } from '../support/certificate.ts'
import { layouts, type RealPair, startRealPair } from '../support/realPair.ts'
import { cleanUp } from '../support/startServer.ts'

/** Allows half-open connections, so that only the server decides when the connection ends. */
async function open(url: string): Promise<Socket> {
  const { protocol, hostname, port } = new URL(url)
  const options = { host: hostname, port: Number(port), allowHalfOpen: true }
  const isTls = protocol === 'https:'
  const socket = isTls ? connectTls({ ...options, rejectUnauthorized: false }) : connect(options)
  socket.on('error', () => {})
  await once(socket, isTls ? 'secureConnect' : 'connect')
  return socket
}

const nameOf = (layout: string, isTls: boolean) => `${layout}, ${isTls ? 'TLS' : 'plain'}`

describe('a real pair', () => {
  let certificate: Certificate
  const pairs = new Map<string, Promise<RealPair>>()
  const cases = layouts.flatMap(layout => [false, true].map(isTls => ({ layout, isTls, name: nameOf(layout, isTls) })))

  // Start all pairs at the same time.
  before(() => {
    certificate = makeCertificate()
    const tls = { TLS_CERT_FILE: certificate.certFile, TLS_KEY_FILE: certificate.keyFile }
    for (const { layout, isTls, name } of cases) {
      const pair = startRealPair(layout, isTls ? tls : {})
      pair.catch(() => {}) // the test that awaits the pair reports its error
      pairs.set(name, pair)
    }
  })
  after(async () => {
    await cleanUp()
    certificate.remove()
  })

  const stopping: Promise<unknown>[] = []
  for (const { name } of cases) {
    it(`survives a request that is followed by malformed bytes: ${name}`, async () => {
      const pair = (await pairs.get(name)) as RealPair
      const body = '{"username":"a","password":"b"}'
      const requests = [
        'GET /console HTTP/1.1\r\nHost: a\r\n\r\n',
        'HEAD /console HTTP/1.1\r\nHost: a\r\n\r\n',
        'GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n',
        `POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        'GET /data HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\n\r\n',
      ]
      for (const url of [pair.urls.business, pair.urls.auth]) {
        const sockets = await Promise.all([...requests, ...requests].map(() => open(url)))
        for (const [i, socket] of sockets.entries()) {
          socket.resume().write(`${requests[i % requests.length]}?\r\n\r\n`)
        }
        // The server closes the connection although the client does not close its half.
        await Promise.all(sockets.map(socket => once(socket, 'end')))
        for (const socket of sockets) socket.destroy()
      }
      // Send several requests, because a failure may show a moment later.
      for (let i = 0; i < 5; i++) {
        const probe = await open(pair.urls.business)
        probe.write('GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
        expect(String((await once(probe, 'data'))[0])).to.match(/^HTTP\/1.1 200 /)
        probe.destroy()
      }
      expect(pair.problems()).to.deep.equal([])
      stopping.push(pair.stop())
    })
  }

  it('ends with exit code 0 afterwards', async () => {
    await Promise.all(stopping)
  })
})
