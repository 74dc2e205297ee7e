// A listener that closes loses no request.
import { once } from 'node:events'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'
import { expect } from 'chai'
import { health } from '../../../shared/http/health.ts'
import { createListener } from '../../../shared/http/listener.ts'
import { demo, serviceKey } from '../../support/credentials.ts'
import { ask, expectProblem, json } from '../../support/httpSuite.ts'
import { collectLog } from '../../support/log.ts'
import { parseAnswer } from '../../support/raw.ts'
import { startAuth } from '../../support/servers.ts'

describe('a listener', () => {
  describe('closing', () => {
    it('loses no request of 50 busy connections, and notifies each with Connection: close', async () => {
      const { url, internalUrl, service } = await startAuth()
      const counts = { sent: 0, answered: 0, lost: 0, closed: 0 }
      // Sends requests one after another on one connection, until the server announces that it closes.
      function load(port: string, path: string, headers: Record<string, string>, body: string): Promise<void> {
        const agent = new Agent({ keepAlive: true, maxSockets: 1 })
        return new Promise(resolve => {
          function next(): void {
            counts.sent++
            const options = { host: '127.0.0.1', port, path, method: 'POST', headers, agent }
            const sent = request(options, answer => {
              answer.resume().once('end', () => {
                counts.answered++
                if (answer.headers.connection !== 'close') return void setImmediate(next)
                counts.closed++
                agent.destroy()
                resolve()
              })
            })
            sent.once('error', () => {
              counts.lost++
              resolve()
            })
            sent.end(body)
          }
          next()
        })
      }

      const key = { ...json, authorization: `Bearer ${serviceKey}` }
      const loads = Array.from({ length: 50 }, (_, i) =>
        i % 5 === 0
          ? load(new URL(internalUrl).port, '/validateToken', key, '{"tokens":["a","b"]}')
          : load(new URL(url).port, '/logout', { token: 'a' }, ''),
      )

      // A request whose first half arrives before the close begins and whose second half arrives afterwards.
      const halves = connect({ host: '127.0.0.1', port: Number(new URL(url).port) })
      halves.write(
        'POST /login HTTP/1.1\r\nHost: auth\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"usern',
      )
      await once(halves, 'connect')
      while (counts.answered < 500 && counts.lost === 0) await new Promise(resolve => setImmediate(resolve))

      const closed = service.close()
      const loginUnderWay = ask(`${url}/login`, { headers: json, body: JSON.stringify(demo) })
      const ready = await ask(`${url}/ready`, { method: 'GET' })
      expectProblem(ready, 503, /closing/)
      expect(ready.headers.get('retry-after')).to.match(/^\d+$/)
      expect((await ask(`${url}/health`, { method: 'GET' })).status).to.equal(200)
      expect((await loginUnderWay).status).to.equal(200)
      await Promise.all(loads)
      halves.write('ame":1}')
      let text = ''
      for await (const part of halves) text += part
      const { status, headers, body } = parseAnswer(text)
      expectProblem({ status, headers, body }, 400, /^username: expected/)
      expect(headers.get('connection')).to.equal('close')
      await closed

      expect(counts).to.include({ lost: 0, closed: 50, answered: counts.sent })
      const refused = await ask(`${url}/health`, { method: 'GET' }).catch((error: Error) => error)
      expect(refused).to.be.instanceOf(Error)
    })

    it('loses no client that has connected, however many wait to be accepted', async () => {
      const { log } = collectLog('closing')
      const monotonicNow = () => performance.now()
      const options = { name: 'closing', portSetting: 'PORT', log, accessLog: 'off', monotonicNow } as const
      const listener = createListener({ 'GET /health': [health] }, options)
      const port = Number(new URL(await listener.listen(0, '127.0.0.1')).port)
      const clients = Array.from({ length: 100 }, () => connect(port, '127.0.0.1'))
      await Promise.all(clients.map(client => once(client, 'connect')))
      const answers = clients.map(async client => {
        client.write('GET /health HTTP/1.1\r\nHost: auth\r\nConnection: close\r\n\r\n')
        let text = ''
        for await (const part of client) text += part
        return parseAnswer(text).status
      })
      await listener.close({ lameDuckMs: 0, drainMs: 2000 })
      expect(await Promise.all(answers)).to.deep.equal(clients.map(() => 200))
    })
  })
})
