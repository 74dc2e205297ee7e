// Who may use a Redis: a user with as few rights as possible, and TLS with client certificates.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { openSharedCounters, openTokenStore, openUsageStore } from '../../../services/auth/stores/index.ts'
import { freePort } from '../../support/freePort.ts'
import { hasRedis, type RedisServer, reportMissingRedis, startRedis } from '../../support/redis.ts'
import { everyCall, inserted, start } from '../../support/redisTokens.ts'
import { toMessage } from '../../support/storeFixtures.ts'

const refusal = (url: string) => openTokenStore(url).then(() => 'opened', toMessage)

describe('a Redis that restricts access', () => {
  let server: RedisServer
  before(async function () {
    if (!hasRedis) {
      reportMissingRedis('a Redis that restricts access')
      return this.skip()
    }
    server = await startRedis()
  })
  after(() => server?.remove())

  describe('to a user with the rights of docs/deploy.md', () => {
    const page = readFileSync(new URL('../../../docs/deploy.md', import.meta.url), 'utf8')
    const line = /^ACL SETUSER latchkey (.*)$/m.exec(page)?.[1] as string
    const rules = line.replace('>password', '>hunter2').split(' ')

    /** Uses everything that Latchkey uses; the first error rejects. */
    async function useEverything(): Promise<void> {
      const url = `redis://latchkey:hunter2@127.0.0.1:${server.port}`
      const store = await openTokenStore(url)
      const counters = await openSharedCounters(url).catch(async error => {
        await store.close()
        throw error
      })
      try {
        await server.command('script', 'flush')
        for (const call of Object.values(everyCall(store))) await call()
        const { ref } = await inserted(store)
        await store.delete(ref, start)
        await inserted(store)
        await store.deleteExpired(start + 1e12, 1000) // also removes
        await store.counts()
        await store.readClock()
        const counter = counters?.open('test', 1000)
        await counter?.add('key')
        await counter?.extend('key', 1000)
        await counter?.set('key', 1)
        await counter?.read('key')
        await counter?.forget('key')
        const usage = await openUsageStore(url, 1)
        await usage.close()
      } finally {
        await counters?.close()
        await store.close()
      }
    }

    it('works, and needs each of the commands', async () => {
      await server.command('acl', 'setuser', 'latchkey', 'reset', ...rules)
      await useEverything()
      // The other two are for REDIS_WAIT_REPLICAS, and for connections that are idle.
      const needed = rules.filter(rule => rule.startsWith('+') && rule !== '+wait' && rule !== '+ping')
      expect(needed.length).to.be.above(5)
      for (const rule of needed) {
        await server.command('acl', 'setuser', 'latchkey', 'reset', ...rules.filter(other => other !== rule))
        const message = await useEverything().then(() => 'works', toMessage)
        expect(message, rule).to.match(/NOPERM|no permission|can't run/i)
      }
    })

    it('does not see the keys of other applications', async () => {
      await server.command('acl', 'setuser', 'latchkey', 'reset', ...rules)
      expect(await refusal(`redis://latchkey:hunter2@127.0.0.1:${server.port}?prefix=other:`)).to.match(/NOPERM/)
    })
  })

  describe('to clients with a certificate', () => {
    let tlsPort: number
    const file = (name: string) => join(server.folder, name)

    function sign(name: string, authority: string): void {
      const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' })
      const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-days', '2']
      const issuer = name === authority ? [] : ['-CA', file(`${authority}.crt`), '-CAkey', file(`${authority}.key`)]
      const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1']
      openssl(
        'req',
        '-x509',
        ...key,
        ...issuer,
        ...subject,
        '-keyout',
        file(`${name}.key`),
        '-out',
        file(`${name}.crt`),
      )
    }

    before(async () => {
      for (const [name, authority] of [
        ['authority', 'authority'],
        ['server', 'authority'],
        ['client', 'authority'],
        ['stranger', 'stranger'],
      ] as const) {
        sign(name, authority)
      }
      tlsPort = await freePort()
      await server.kill()
      await server.start({
        'tls-port': String(tlsPort),
        'tls-cert-file': file('server.crt'),
        'tls-key-file': file('server.key'),
        'tls-ca-cert-file': file('authority.crt'),
        'tls-auth-clients': 'yes',
      })
    })

    const urlWith = (name: string | null, scheme = 'rediss') => {
      const own = name === null ? '' : `&tls-cert-file=${file(`${name}.crt`)}&tls-key-file=${file(`${name}.key`)}`
      return `${scheme}://127.0.0.1:${tlsPort}?tls-ca-file=${file('authority.crt')}${own}`
    }

    it('answers one whose URL names its certificate and the authority', async () => {
      const store = await openTokenStore(urlWith('client'))
      await inserted(store)
      await store.close()
    })

    it('refuses one without a certificate, and says what the URL must name', async () => {
      expect(await refusal(urlWith(null))).to.match(/demands a client certificate: add tls-cert-file=…&tls-key-file=…/)
    })

    it('refuses one with a certificate of another authority', async () => {
      expect(await refusal(urlWith('stranger'))).to.match(/ \(ERR_SSL_[A-Z0-9_]*UNKNOWN_CA\)/)
    })

    it('is refused itself by one that does not know its authority', async () => {
      const url = `rediss://127.0.0.1:${tlsPort}?tls-ca-file=${file('stranger.crt')}`
      expect(await refusal(url)).to.match(
        /has a certificate that is not trusted \([A-Z_]+\); give its authority as tls-ca-file=…/,
      )
    })
  })
})
