// Client addresses: trusted proxies, lists of addresses, and how the listeners apply them.
import { expect } from 'chai'
import fc from 'fast-check'
import {
  addressGate,
  addressTest,
  clientAddress,
  isAddressRule,
  peerAddress,
  proxyTest,
  type TrustedProxies,
} from '../../../shared/http/address.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import { sendRaw } from '../../support/raw.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'

const nowhere = 'http://127.0.0.1:1'

describe('an address', () => {
  const forms: [remoteAddress: string | undefined, address: string][] = [
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['::FFFF:c000:207', '192.0.2.7'],
    ['::ffff:0:0', '0.0.0.0'],
    ['2001:DB8:0:0::7', '2001:db8::7'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::1', '::1'],
    ['::192.0.2.7', '::192.0.2.7'],
    ['010.0.0.1', ''],
    [undefined, ''],
  ]
  for (const [remoteAddress, address] of forms) {
    it(`${remoteAddress} is ${address || 'none'}`, () => {
      expect(peerAddress({ remoteAddress })).to.equal(address)
    })
  }
})

describe('the client behind proxies', () => {
  const matrix: [trusted: TrustedProxies, forwardedFor: string | undefined, client: string][] = [
    // No proxy is trusted.
    [0, '203.0.113.9', '10.0.0.1'],
    [[], '203.0.113.9', '10.0.0.1'],
    // One hop: the entry that the proxy appended, whatever the client sent.
    [1, '203.0.113.9', '203.0.113.9'],
    [1, '8.8.8.8, 203.0.113.9', '203.0.113.9'],
    [1, '8.8.8.8,203.0.113.9', '203.0.113.9'],
    [1, '<script>, 203.0.113.9', '203.0.113.9'],
    [1, undefined, '10.0.0.1'],
    [1, '', '10.0.0.1'],
    [1, '<script>', '10.0.0.1'],
    [1, '203.0.113.9, unknown', '10.0.0.1'],
    [1, '203.0.113.9,', '10.0.0.1'],
    [1, '203.0.113.9, 010.0.0.2', '10.0.0.1'],
    // Two hops.
    [2, '203.0.113.9, 10.0.0.2', '203.0.113.9'],
    [2, '8.8.8.8, 203.0.113.9, 10.0.0.2', '203.0.113.9'],
    [2, 'garbage, 10.0.0.2', '10.0.0.2'],
    [2, '10.0.0.2', '10.0.0.2'],
    // Proxies are trusted by address.
    [['10.0.0.0/8'], '8.8.8.8, 203.0.113.9', '203.0.113.9'],
    [['10.0.0.0/8'], '8.8.8.8, 203.0.113.9, 10.0.0.2, 10.0.0.3', '203.0.113.9'],
    [['10.0.0.1'], '203.0.113.9, 10.0.0.2', '10.0.0.2'],
    [['10.0.0.0/8'], 'garbage, 10.0.0.2', '10.0.0.2'],
    [['10.0.0.0/8'], '10.0.0.3, 10.0.0.2', '10.0.0.3'],
    [['192.0.2.0/24'], '203.0.113.9', '10.0.0.1'],
    [['::ffff:10.0.0.0/104'], '203.0.113.9', '203.0.113.9'],
    // Forms that an entry can have.
    [1, '203.0.113.9:4711', '203.0.113.9'],
    [1, '[2001:db8::7]:4711', '2001:db8::7'],
    [1, '[2001:db8::7]', '2001:db8::7'],
    [1, '2001:DB8::7', '2001:db8::7'],
    [1, 'fe80::1%eth0', 'fe80::1'],
    [1, '::ffff:203.0.113.9', '203.0.113.9'],
    [1, '[203.0.113.9]', '10.0.0.1'],
    [1, '203.0.113.9:port', '10.0.0.1'],
    [1, '203.0.113.9 8.8.8.8', '10.0.0.1'],
    [1, '0x7f.0.0.1', '10.0.0.1'],
    [1, '2130706433', '10.0.0.1'],
  ]
  for (const [trusted, forwardedFor, client] of matrix) {
    it(`is ${client} of ${JSON.stringify(forwardedFor)} from 10.0.0.1 if ${JSON.stringify(trusted)} is trusted`, () => {
      expect(clientAddress('10.0.0.1', forwardedFor, proxyTest(trusted))).to.equal(client)
    })
  }

  const address = fc.oneof(fc.ipV4(), fc.constantFrom('10.0.0.1', '10.0.0.2', '10.9.9.9'))
  const entry = fc.oneof({ weight: 5, arbitrary: address }, fc.constantFrom('', 'unknown', '10.0.0.256', '<b>'))
  const isIPv4 = (text: string) => text.split('.').length === 4 && text.split('.').every(part => Number(part) < 256)

  it('is the right-most address beyond the trusted hops or networks, as in a model', () => {
    fc.assert(
      fc.property(address, fc.array(entry, { maxLength: 6 }), fc.nat(4), (peer, entries, hops) => {
        const chain = [...entries.slice(entries.findLastIndex(text => !isIPv4(text)) + 1), peer]
        const byHops = chain.at(-Math.min(hops + 1, chain.length))
        const byNetwork = chain.findLast(text => !text.startsWith('10.')) ?? chain[0]
        const line = entries.length > 0 ? entries.join(', ') : undefined
        expect(clientAddress(peer, line, proxyTest(hops))).to.equal(byHops)
        expect(clientAddress(peer, line, proxyTest(['10.0.0.0/8']))).to.equal(byNetwork)
      }),
      { numRuns: 1000 },
    )
  })

  it('is an address or none, whatever bytes are sent', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.nat(9), (line, hops) => {
        const client = clientAddress('192.0.2.1', line, proxyTest(hops))
        expect(isAddressRule(client), client).to.equal(true)
      }),
    )
  })
})

describe('a rule for addresses', () => {
  const bad = [
    '',
    ' ',
    '010.0.0.1',
    '10.0.0.0/08',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    '10.0.0.0/255.0.0.0',
    '10.0.0.256',
    '10.0.0',
    '0x0a.0.0.1',
    '10.0.0.1:80',
    '10.0.0.1-10.0.0.9',
    '2001:db8::/129',
    'fe80::1%eth0',
    'fe80::%eth0/64',
    '[::1]',
    '::ffff:0:0/95',
    ':::',
    'localhost',
    '*',
  ]
  for (const text of bad) {
    it(`is not ${JSON.stringify(text)}`, () => {
      expect(isAddressRule(text)).to.equal(false)
    })
  }

  const rules: [rule: string, inside: string[], outside: string[]][] = [
    ['192.0.2.7', ['192.0.2.7'], ['192.0.2.8', '::1']],
    ['10.0.0.0/8', ['10.0.0.0', '10.255.255.255'], ['9.255.255.255', '11.0.0.0', '']],
    ['10.1.2.3/8', ['10.9.9.9'], ['11.0.0.0']],
    ['0.0.0.0/0', ['0.0.0.0', '255.255.255.255'], ['::', '::1', '']],
    ['::/0', ['::', '2001:db8::1'], ['10.0.0.1', '']],
    ['2001:db8::/33', ['2001:db8:7fff::1'], ['2001:db8:8000::1']],
    ['::1', ['::1'], ['::2', '0.0.0.1']],
    ['::ffff:0:0/96', ['10.0.0.1'], ['::1', '2001:db8::1']],
    ['::ffff:10.0.0.0/104', ['10.9.9.9'], ['11.0.0.1']],
    ['::ffff:192.0.2.7', ['192.0.2.7'], ['192.0.2.8']],
  ]
  for (const [rule, inside, outside] of rules) {
    it(`${rule} contains ${inside.join(', ')} and not ${outside.map(address => address || 'an unknown one').join(', ')}`, () => {
      expect(isAddressRule(rule)).to.equal(true)
      const test = addressTest([rule])
      for (const address of inside) expect(test(address), address).to.equal(true)
      for (const address of outside) expect(test(address), address).to.equal(false)
    })
  }

  interface Network {
    bits: number
    value: bigint
    prefix: number
  }
  const network = fc.constantFrom(32, 128).chain(bits =>
    fc.record<Network>({
      bits: fc.constant(bits),
      value: fc.bigInt({ min: 0n, max: 2n ** BigInt(bits) - 1n }),
      prefix: fc.nat(bits),
    }),
  )
  const write = (bits: number, value: bigint) =>
    bits === 32
      ? [24n, 16n, 8n, 0n].map(shift => (value >> shift) & 255n).join('.')
      : // The first group is not zero, so that no address is an IPv4-mapped one.
        [112n, 96n, 80n, 64n, 48n, 32n, 16n, 0n].map(shift => ((value >> shift) & 0xffffn).toString(16)).join(':')
  const holds = ({ bits, value, prefix }: Network, of: { bits: number; value: bigint }) =>
    bits === of.bits && value >> BigInt(bits - prefix) === of.value >> BigInt(bits - prefix)

  it('admits as in a model: denied addresses win, and an empty list of allowed ones admits all', () => {
    const lists = fc.array(network, { maxLength: 3 })
    fc.assert(
      fc.property(lists, lists, network, fc.nat(), fc.nat(), (allowed, denied, other, which, flipped) => {
        const { bits, value, prefix } = [...allowed, ...denied, other][
          which % (allowed.length + denied.length + 1)
        ] as Network
        // An address near one of the networks: one bit is changed, just before or just after the end of the prefix.
        const near = value ^ (1n << BigInt((bits - prefix + (flipped % 3) + bits - 1) % bits))
        const caller = { bits, value: near }
        const gate = addressGate(...([allowed, denied].map(list => list.map(textOf)) as [string[], string[]]))
        const isHeld = (list: Network[]) => list.some(one => holds(one, caller))
        const expected = !isHeld(denied) && (allowed.length === 0 || isHeld(allowed))
        expect(gate(peerAddress({ remoteAddress: write(bits, near) }))).to.equal(expected)
      }),
      { numRuns: 1000 },
    )
    function textOf({ bits, value, prefix }: Network): string {
      return `${write(bits, value)}/${prefix}`
    }
  })

  it('admits every address if there is no rule, and no unknown address if there is one', () => {
    expect(addressGate([], [])('')).to.equal(true)
    expect(addressGate(['0.0.0.0/0'], [])('')).to.equal(false)
    expect(addressGate([], ['192.0.2.7'])('')).to.equal(false)
  })
})

describe('a public listener', () => {
  after(closeServers)

  const from = (address: string, base: string, path = '/data') =>
    fetch(`${base}${path}`, { headers: { 'x-forwarded-for': address, connection: 'close' } })

  async function expectRefusal(answer: Response): Promise<void> {
    expect(answer.status).to.equal(403)
    expect(answer.headers.get('content-type')).to.equal('application/problem+json')
    const { error, detail } = (await answer.json()) as Record<string, string>
    expect({ error, detail }).to.deep.equal({
      error: 'forbidden',
      detail: 'Requests from this address are not allowed.',
    })
  }

  it('trusts no header by default, and logs the address of the socket', async () => {
    const { url, lines } = await startBusiness(nowhere, { DENIED_ADDRESSES: '203.0.113.9' })
    expect((await from('203.0.113.9', url)).status).to.equal(401)
    expect(lines.at(-1)).to.include({ event: 'request', path: '/data', address: '127.0.0.1' })
  })

  it('logs the client that a trusted proxy names in the last X-Forwarded-For line', async () => {
    const { url, lines } = await startBusiness(nowhere, { TRUSTED_PROXIES: '1' })
    const head = 'GET /data HTTP/1.1\r\nHost: a\r\nConnection: close\r\n'
    await sendRaw(url, `${head}X-Forwarded-For: 8.8.8.8\r\nX-Forwarded-For: [2001:db8::7]:1234\r\n\r\n`)
    expect(lines.at(-1)).to.include({ event: 'request', address: '2001:db8::7' })
  })

  it('refuses a denied or not allowed address with 403 before all else, and logs it once a second', async () => {
    const { url, lines } = await startBusiness(nowhere, {
      TRUSTED_PROXIES: '127.0.0.0/8',
      ALLOWED_ADDRESSES: '203.0.113.0/24, 2001:db8::/32',
      DENIED_ADDRESSES: '203.0.113.9',
    })
    expect((await from('203.0.113.8', url)).status).to.equal(401)
    expect((await from('2001:db8::7', url)).status).to.equal(401)
    await expectRefusal(await from('203.0.113.9', url))
    await expectRefusal(await from('198.51.100.1', url))
    await expectRefusal(await from('203.0.113.8, 198.51.100.1', url))
    await expectRefusal(await from('203.0.113.8, garbage', url)) // the proxy itself is not allowed
    await expectRefusal(await from('198.51.100.1', url, '/nothing'))
    const [first, ...more] = lines.filter(({ event }) => event === 'address_refused')
    expect(first).to.include({ level: 'warn', listener: 'business', address: '203.0.113.9', times: 1 })
    expect(more.length).to.be.at.most(1)
  })

  it('answers /health and /ready for every address, because load balancers are on no list', async () => {
    const { url } = await startBusiness(nowhere, { ALLOWED_ADDRESSES: '203.0.113.9' })
    expect((await from('', url)).status).to.equal(403)
    expect((await from('', url, '/health')).status).to.equal(200)
    expect((await from('', url, '/ready')).status).to.equal(503)
  })

  it('of Auth refuses a log-in too; the internal listener trusts no header and refuses no address', async () => {
    const env = { TRUSTED_PROXIES: '1', DENIED_ADDRESSES: '203.0.113.9, 127.0.0.1' }
    const { url, internalUrl, lines } = await startAuth({ env })
    await expectRefusal(await from('203.0.113.9', url, '/openapi.json'))
    const body = JSON.stringify(demo)
    const headers = { 'content-type': 'application/json', 'x-forwarded-for': '203.0.113.8' }
    expect((await fetch(`${url}/login`, { method: 'POST', headers, body })).status).to.equal(200)
    const refused = await fetch(`${url}/login`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    })
    await expectRefusal(refused)
    for (const key of [serviceKey, adminKey]) {
      const answer = await fetch(`${internalUrl}/validateToken`, {
        method: 'POST',
        headers: { ...headers, authorization: `Bearer ${key}` },
        body: '{"token":"x"}',
      })
      expect(answer.status).to.equal(200)
    }
    expect(lines.filter(({ event }) => event === 'request').at(-1)).to.include({ address: '127.0.0.1' })
  })

  it('never trusts X-Forwarded-Host or Host: a link in a mail begins with PUBLIC_URL, even behind a trusted proxy', async () => {
    const env = { TRUSTED_PROXIES: '1', PUBLIC_URL: 'https://accounts.example' }
    const { url, lines } = await startAuth({ env })
    const body = JSON.stringify({ username: demo.username })
    const head = `POST /password/forgot HTTP/1.1\r\nHost: evil.example@accounts.example\r\nX-Forwarded-Host: evil.example\r\n`
    const rest = `Forwarded: host=evil.example\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n`
    expect((await sendRaw(url, `${head}${rest}${body}`, 2000)).status).to.equal(202)
    while (!lines.some(({ event }) => event === 'mail')) await new Promise(setImmediate)
    const { text } = lines.find(({ event }) => event === 'mail') as unknown as { text: string }
    expect(text).to.include('https://accounts.example/')
    expect(JSON.stringify(lines)).not.to.include('evil')
  })

  describe('in production behind a trusted proxy', () => {
    let business: Awaited<ReturnType<typeof startBusiness>>
    const proto = (value: string | undefined, path = '/data') =>
      fetch(`${business.url}${path}`, {
        headers: { connection: 'close', ...(value && { 'x-forwarded-proto': value }) },
      })

    before(async () => {
      business = await startBusiness(nowhere, { NODE_ENV: 'production', TRUSTED_PROXIES: '1' })
    })

    for (const value of ['http', 'HTTP', 'https, http', 'https,http', 'ws', 'on', 'https,']) {
      it(`refuses a request that came as ${value} with 403, without a redirect`, async () => {
        const answer = await proto(value)
        expect(answer.status).to.equal(403)
        expect(answer.headers.has('location')).to.equal(false)
        expect(answer.headers.has('strict-transport-security')).to.equal(false)
        expect(((await answer.json()) as Record<string, string>)['detail']).to.equal('Send requests over https.')
      })
    }

    for (const value of ['https', 'HTTPS', 'http, https']) {
      it(`serves a request that came as ${value}, with HSTS`, async () => {
        const answer = await proto(value)
        expect(answer.status).to.equal(401)
        expect(answer.headers.get('strict-transport-security')).to.equal('max-age=31536000')
      })
    }

    it('refuses a request without X-Forwarded-Proto, and explains it', async () => {
      const answer = await proto(undefined)
      expect([answer.status, answer.headers.has('strict-transport-security')]).to.deep.equal([403, false])
      expect(((await answer.json()) as Record<string, string>)['detail']).to.equal(
        'Send requests over https. The proxy in front of this server does not send X-Forwarded-Proto.',
      )
    })

    it('answers /health and /ready whatever the protocol', async () => {
      for (const value of ['http', undefined]) {
        expect((await proto(value, '/health')).status).to.equal(200)
        expect((await proto(value, '/ready')).status).to.equal(503) // Auth is down
      }
    })
  })

  it('in production serves clients without a trusted proxy, and does not trust their X-Forwarded-Proto', async () => {
    const business = await startBusiness(nowhere, { NODE_ENV: 'production', TRUSTED_PROXIES: '192.0.2.1' })
    for (const value of ['http', 'https']) {
      const answer = await fetch(`${business.url}/data`, {
        headers: { 'x-forwarded-proto': value, connection: 'close' },
      })
      expect([answer.status, answer.headers.has('strict-transport-security')]).to.deep.equal([401, false])
    }
  })
})
