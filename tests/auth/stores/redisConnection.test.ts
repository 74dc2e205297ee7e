// How a token store in Redis is opened and closed: URLs, TLS, users, and settings that would lose tokens.

import { once } from 'node:events'
import { createServer } from 'node:net'
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/index.ts'
import type { TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import { type Line, startLine } from '../../support/line.ts'
import {
  type ClusterNode,
  hasRedis,
  type RedisServer,
  reportMissingRedis,
  sharedCluster,
  sharedRedisWithTls,
  startRedis,
} from '../../support/redis.ts'
import { crowdOf, everyCall, inserted, keysOf, touch } from '../../support/redisTokens.ts'
import { expectAllToReject } from '../../support/storeFaults.ts'
import { toMessage } from '../../support/storeFixtures.ts'
import { startStoreProcess } from '../../support/storeProcess.ts'
import { until } from '../../support/until.ts'

describe('tokens in Redis:', () => {
  let server: RedisServer
  const opened: TokenStore[] = []
  before(async function () {
    if (!hasRedis) {
      reportMissingRedis('tokens in Redis')
      return this.skip()
    }
    server = await startRedis()
  })
  after(() => server?.remove())
  afterEach(async () => {
    await Promise.all(opened.splice(0).map(store => store.close()))
  })

  async function open(url = server.url, warn?: (warning: string) => void): Promise<TokenStore> {
    const store = await openTokenStore(url, warn)
    opened.push(store)
    return store
  }
  describe('is opened', () => {
    const refusal = (url: string) => openTokenStore(url).then(() => 'opened', toMessage)
    const refusalWithin = async (url: string): Promise<string> => {
      const startedAt = performance.now()
      const message = await refusal(url)
      expect(performance.now() - startedAt).to.be.below(5000)
      return message
    }

    it('not if nothing listens', async () => {
      for (const scheme of ['redis', 'rediss', 'redis-cluster']) {
        const what = scheme === 'redis-cluster' ? 'cluster' : 'server'
        expect(await refusalWithin(`${scheme}://me:hunter2@127.0.0.1:1`)).to.equal(
          `TOKEN_STORE_URL: the Redis ${what} at 127.0.0.1:1 cannot be reached (ECONNREFUSED)`,
        )
      }
      const message = await refusalWithin('redis://me:hunter2@nobody.invalid:1')
      expect(message).to.match(
        /^TOKEN_STORE_URL: the Redis server at nobody\.invalid:1 cannot be reached \(E[A-Z_]+\)$/,
      )
    })

    it('not with a wrong password, and the error does not repeat it', async () => {
      const guarded = await startRedis({ requirepass: 'right' })
      try {
        for (const login of ['', 'hunter2@', ':hunter2@', 'nobody:hunter2@', 'default:hunter2@']) {
          for (const [scheme, what] of [
            ['redis', 'server'],
            ['redis-cluster', 'cluster'],
          ]) {
            expect(await refusalWithin(`${scheme}://${login}127.0.0.1:${guarded.port}`)).to.equal(
              `TOKEN_STORE_URL: the Redis ${what} at 127.0.0.1:${guarded.port} refuses this user or its password`,
            )
          }
        }
        for (const login of [':right@', 'default:right@', 'tests:any@'])
          await open(`redis://${login}127.0.0.1:${guarded.port}`)
      } finally {
        await Promise.all(opened.splice(0).map(store => store.close()))
        await guarded.remove()
      }
    })

    it('not if something else answers, or nothing, or not in time', async () => {
      const web = createServer(socket => {
        socket.on('error', () => {}) // the client broke the connection
        socket.on('data', () => socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n'))
      }).listen(0, '127.0.0.1')
      await once(web, 'listening')
      const lines = await Promise.all([server.port, server.port, server.port].map(startLine))
      const [silent, slow, hanging] = lines as [Line, Line, Line]
      silent.state = 'silent'
      slow.state = 'slow'
      hanging.silentAfter = 1 // identifies itself as Redis and answers nothing else
      const { port } = web.address() as { port: number }
      const why: [number, string][] = [
        [port, 'Unknown RESP type 72 "H"'],
        [silent.port, 'no answer'],
        [slow.port, 'no answer'],
        [hanging.port, 'no answer'],
      ]
      try {
        const messages = why.flatMap(([port, why]) =>
          ['redis', 'redis-cluster'].map(async scheme => {
            const what = scheme === 'redis' ? 'server' : 'cluster'
            const sentence = (why: string) =>
              `TOKEN_STORE_URL: the Redis ${what} at 127.0.0.1:${port} cannot be reached (${why})`
            // Try again if the answer misses the deadline, as it may on a busy machine.
            await until(async () => {
              const refusal = await refusalWithin(`${scheme}://:hunter2@127.0.0.1:${port}`)
              if (refusal !== sentence('no answer')) expect(refusal).to.equal(sentence(why))
              return refusal === sentence(why)
            })
          }),
        )
        await Promise.all(messages)
      } finally {
        web.close()
        await Promise.all(lines.map(line => line.close()))
      }
    })

    it('with TLS only if the certificate is trusted or the URL has tls=no-verify', async () => {
      const { tlsPort, port } = await sharedRedisWithTls()
      const [untrusted, ...misunderstood] = await Promise.all([
        refusalWithin(`rediss://127.0.0.1:${tlsPort}`),
        refusalWithin(`redis://127.0.0.1:${tlsPort}`),
        refusalWithin(`rediss://127.0.0.1:${port}?tls=no-verify`),
      ])
      expect(untrusted).to.equal(
        `TOKEN_STORE_URL: the Redis server at 127.0.0.1:${tlsPort} has a certificate that is not trusted (DEPTH_ZERO_SELF_SIGNED_CERT); give its authority as tls-ca-file=…, or, to trust it all the same, add tls=no-verify to the query of the URL`,
      )
      for (const message of misunderstood) expect(message).to.match(/ cannot be reached \(.+\)$/)
      const store = await open(`rediss://127.0.0.1:${tlsPort}?tls=no-verify`)
      const { ref } = await inserted(store)
      expect(await touch(await open(`redis://127.0.0.1:${tlsPort}?tls=no-verify`), ref)).to.not.equal(null)
    })

    it('not if it evicts keys when full, unless the URL has eviction=allowed', async () => {
      const connections = async () => (await server.tell('client', 'list')).split('\n').length
      const before = await connections()
      try {
        for (const policy of ['allkeys-lru', 'volatile-ttl']) {
          await server.command('config', 'set', 'maxmemory-policy', policy)
          expect(await refusal(server.url)).to.equal(
            `TOKEN_STORE_URL: the Redis server at 127.0.0.1:${server.port} has maxmemory-policy ${policy}: when its memory is full it forgets sessions and revocations. Set it to noeviction, or add eviction=allowed to the query of the URL`,
          )
          await until(async () => (await connections()) === before, 1000)
          const store = await open(`${server.url}?eviction=allowed`)
          await inserted(store)
          await store.close()
        }
      } finally {
        await server.command('config', 'set', 'maxmemory-policy', 'noeviction')
      }
    })

    it('with a warning if it has no append-only file', async () => {
      const warnings: string[] = []
      await open(server.url, warning => warnings.push(warning))
      expect(warnings).to.deep.equal([])
      try {
        await server.command('config', 'set', 'appendonly', 'no')
        await open(server.url, warning => warnings.push(warning))
      } finally {
        await server.command('config', 'set', 'appendonly', 'yes')
      }
      expect(warnings).to.have.lengthOf(1)
      expect(warnings[0]).to.match(
        new RegExp(`^the Redis server at 127\\.0\\.0\\.1:${server.port} has no append-only file`),
      )
    })

    it('not for a user without the needed permissions', async () => {
      await server.command('acl', 'setuser', 'weak', 'on', '>hunter2', '~*', '+@all', '-info')
      const message = await refusal(`redis://weak:hunter2@127.0.0.1:${server.port}`)
      expect(message).to.match(/ does not allow this user what Latchkey needs \(NOPERM .*\)$/)
      expect(message).to.not.include('hunter2')
    })

    it('only with the scheme for what it is, a server or a cluster', async () => {
      const { nodes } = await sharedCluster()
      const [{ line }] = nodes as [ClusterNode]
      expect(await refusal(`redis://127.0.0.1:${line.port}`)).to.equal(
        `TOKEN_STORE_URL: the Redis server at 127.0.0.1:${line.port} is part of a cluster: begin the URL with redis-cluster://`,
      )
      expect(await refusal(`redis-cluster://127.0.0.1:${server.port}`)).to.equal(
        `TOKEN_STORE_URL: the Redis cluster at 127.0.0.1:${server.port} is not a cluster: begin the URL with redis:// or rediss://`,
      )
    })

    it('as a cluster by any of its addresses, if every master passes the checks', async () => {
      const { nodes } = await sharedCluster()
      const [first, second, third] = nodes as [ClusterNode, ClusterNode, ClusterNode]
      const dead = `127.0.0.1:1,127.0.0.1:${second.line.port}`
      const warnings: string[] = []
      await open(`redis-cluster://${dead}`, warning => warnings.push(warning))
      expect(warnings).to.deep.equal([])
      try {
        await third.command('config', 'set', 'maxmemory-policy', 'allkeys-lru')
        for (const node of [first, third]) await node.command('config', 'set', 'appendonly', 'no')
        expect(await refusal(`redis-cluster://${dead}`)).to.match(/ has maxmemory-policy allkeys-lru: /)
        await open(`redis-cluster://${dead}?eviction=allowed`, warning => warnings.push(warning))
        const ports = warnings.map(
          warning => /^the Redis server at 127\.0\.0\.1:(\d+) has no append-only/.exec(warning)?.[1],
        )
        expect(ports.map(Number)).to.have.members([first.line.port, third.line.port])
        third.hang()
        expect(await refusalWithin(`redis-cluster://${dead}`)).to.match(/ cannot be reached \(.+\)$/)
      } finally {
        third.resume()
        await third.command('config', 'set', 'maxmemory-policy', 'noeviction')
        for (const node of [first, third]) await node.command('config', 'set', 'appendonly', 'yes')
      }
    })

    it('not if a newer Latchkey has written the tokens', async () => {
      await (await open(server.url)).close()
      expect(await server.command('get', 'latchkey:format')).to.equal('1')
      await server.command('set', 'latchkey:format', '2')
      const message = await open(server.url).then(() => 'opened', toMessage)
      await server.command('del', 'latchkey:format')
      expect(message).to.equal(
        'TOKEN_STORE_URL: the tokens in Redis were written by a newer Latchkey (format 2); use that version or a later one',
      )
    })

    it('if CONFIG is forbidden', async () => {
      const managed = await startRedis({ 'rename-command': 'CONFIG ', 'maxmemory-policy': 'allkeys-lru' })
      try {
        expect(await refusal(managed.url)).to.match(/has maxmemory-policy allkeys-lru/)
        await inserted(await open(`${managed.url}?eviction=allowed`))
      } finally {
        await Promise.all(opened.splice(0).map(store => store.close()))
        await managed.remove()
      }
    })

    it('in the database of the URL, even after a reconnection', async () => {
      const line = await startLine(server.port)
      try {
        const store = await open(`redis://127.0.0.1:${line.port}/3?prefix=three:`)
        await inserted(store)
        line.cut()
        await until(() =>
          inserted(store).then(
            () => true,
            () => false,
          ),
        )
        expect((await keysOf(server)).filter(key => key.startsWith('three:'))).to.deep.equal([])
        expect(await server.tell('info', 'keyspace')).to.match(/db3:keys=3/)
      } finally {
        await line.close()
      }
    })

    const shape =
      'expected redis://user:password@host:port/database?prefix=…, rediss://…, redis-cluster://host:port,host:port, or redis-sentinel://host:port,host:port/name'
    const options = ['prefix', 'tls', 'tls-ca-file', 'tls-cert-file', 'tls-key-file', 'eviction', 'wait-replicas']
    const badUrls: Record<string, string> = {
      'redis:': shape,
      'redis://': shape,
      'redis:///0': shape,
      'redis://me:hunter2@': shape,
      'redis://me:hunter2@/0': shape,
      'redis://host:hunter2': shape,
      'redis://host:99999': shape,
      'redis://host/hunter2': shape,
      'redis://:hunter2%@host': shape,
      'redis://one,two': shape,
      'redis://host#hunter2': shape,
      'redis-cluster://one,,two': shape,
      'redis-cluster://one/1': shape,
      'redis://:hunter2@host?tsl=verify': `tsl: expected ${options.join(', ')} or wait-timeout-ms`,
      'redis-sentinel://one,two': shape,
      'redis-sentinel://one,two/': shape,
      'redis-sentinel://one,,two/main': shape,
      'redis-sentinel://one/main?database=hunter2': 'database: expected a number',
      'redis-sentinel://one/main?sentinel-user=me': 'sentinel-user: expected only with sentinel-password',
      'redis-sentinel://one/main?tsl=verify':
        'tsl: expected prefix, tls, tls-ca-file, tls-cert-file, tls-key-file, eviction, wait-replicas, wait-timeout-ms, database, sentinel-user or sentinel-password',
      'redis://one?sentinel-password=hunter2': 'sentinel-password: expected only with redis-sentinel://',
      'redis://one?tls-ca-file=ca.crt': 'tls-ca-file: expected only with TLS (rediss:// or tls=verify)',
      'rediss://one?tls-cert-file=a.crt': 'tls-cert-file, tls-key-file: expected both or neither',
      'rediss://one?tls-ca-file=/none.crt': 'tls-ca-file: /none.crt cannot be read (ENOENT)',
      'rediss://one?tls-ca-file=package.json': 'tls-ca-file: expected a PEM file; package.json is not one',
      'redis://:hunter2@host?tls=hunter2': 'tls: expected verify or no-verify',
      'redis://:hunter2@host?eviction=yes': 'eviction: expected refused or allowed',
      'redis://:hunter2@host?prefix=a{b': 'prefix: expected none of { } * ? [ ] \\',
      'redis://:hunter2@host?prefix=a*': 'prefix: expected none of { } * ? [ ] \\',
    }
    for (const [url, sentence] of Object.entries(badUrls)) {
      it(`not with the URL ${url}`, async () => {
        expect(await refusal(url)).to.equal(`TOKEN_STORE_URL: ${sentence}`)
      })
    }
  })

  describe('is closed', () => {
    it('at once, even if the server hangs, and pending calls reject', async () => {
      const store = await open()
      await inserted(store)
      server.hang()
      const pending = Promise.allSettled(Object.values(crowdOf(everyCall(store))).map(call => call()))
      await store.close()
      for (const outcome of await pending) {
        // The end of the connection rejects the call, earlier than the deadline of the call would.
        const why = outcome.status === 'rejected' && outcome.reason instanceof Error && outcome.reason.message
        expect(why)
          .to.be.a('string')
          .and.not.match(/did not answer within/)
      }
      server.resume()
      await expectAllToReject(everyCall(store))
    })

    it('and keeps no process alive', async () => {
      const { url } = await sharedCluster()
      const processes = [startStoreProcess(server.url), startStoreProcess(url)]
      await Promise.all(processes.map(({ ready }) => ready))
      expect(await Promise.all(processes.map(one => one.close()))).to.deep.equal(['0', '0'])
    })

    for (const state of ['cut', 'silent'] as const) {
      it(`and keeps no process alive that is reconnecting over a line that is ${state}`, async () => {
        const line = await startLine(server.port)
        try {
          const one = startStoreProcess(`redis://127.0.0.1:${line.port}`)
          await one.ready
          if (state === 'cut') line.target = 1
          else line.state = state
          line.cut()
          await until(() => line.connections > 1)
          expect(await one.close()).to.equal('0')
        } finally {
          await line.close()
        }
      })
    }
  })
})
