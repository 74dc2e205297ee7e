// No request can end a process that ./startServer started, in either layout, with and without TLS.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { expect } from 'chai'
import { type Certificate, makeCertificate } from '../support/certificate.ts'
import { layouts, type RealPair, startRealPair } from '../support/realPair.ts'
import { cleanUp } from '../support/startServer.ts'

/** Half-open, so that only the server decides when the connection ends. */
async function open(url: string): Promise<Socket> {
  const { protocol, hostname, port } = new URL(url)
  const options = { host: hostname, port: Number(port), allowHalfOpen: true }
  const isTls = protocol === 'https:'
  const socket = isTls ? connectTls({ ...options, rejectUnauthorized: false }) : connect(options)
  socket.on('error', () => {})
  await once(socket, isTls ? 'secureConnect' : 'connect')
  return socket
}

describe('a real pair', () => {
  let certificate: Certificate

  before(() => {
    certificate = makeCertificate()
  })
  after(async () => {
    await cleanUp()
    certificate.remove()
  })

  for (const layout of layouts) {
    for (const isTls of [false, true]) {
      it(`outlives a request that is followed by malformed bytes: ${layout}, ${isTls ? 'TLS' : 'plain'}`, async () => {
        const tls = { TLS_CERT_FILE: certificate.certFile, TLS_KEY_FILE: certificate.keyFile }
        const pair: RealPair = await startRealPair(layout, isTls ? tls : {})
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
          // The server closes the connection although the client keeps its half open.
          await Promise.all(sockets.map(socket => once(socket, 'end')))
          for (const socket of sockets) socket.destroy()
        }
        // Several requests, because a failure may show a moment later.
        for (let i = 0; i < 5; i++) {
          const probe = await open(pair.urls.business)
          probe.write('GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
          expect(String((await once(probe, 'data'))[0])).to.match(/^HTTP\/1.1 200 /)
          probe.destroy()
        }
        expect(pair.problems()).to.deep.equal([])
        await pair.stop()
      })
    }
  }
})
