// The health check of the images: whether a service of this container answers. `/health` and not `/ready`: an outage of a
// store is no reason to restart. Reads the settings by hand, because it runs every ten seconds.
import http from 'node:http'
import https from 'node:https'
import { refuseUsage } from './arguments.ts'

const usage = `Usage: node commands/healthcheck.ts auth | business | authInternal

Asks /health of that listener, where the settings in the environment say it is. Exit code 0 if it answers 200, or 1.`

const listeners: Record<string, { port: string; usual: string; host: string; certificate: string }> = {
  auth: { port: 'AUTH_PORT', usual: '3001', host: 'HOST', certificate: 'TLS_CERT_FILE' },
  business: { port: 'BUSINESS_PORT', usual: '3000', host: 'HOST', certificate: 'TLS_CERT_FILE' },
  authInternal: {
    port: 'AUTH_INTERNAL_PORT',
    usual: '3101',
    host: 'INTERNAL_HOST',
    certificate: 'INTERNAL_TLS_CERT_FILE',
  },
}
const withinMs = 1500

const [name = '', ...others] = process.argv.slice(2)
const listener = listeners[name]
if (name === '--help') {
  console.log(usage)
  process.exit(0)
}
if (listener === undefined || others.length > 0) {
  refuseUsage(usage, `There is no listener ${JSON.stringify([name, ...others].join(' '))}.`)
}

const setting = (name: string) => process.env[name]?.trim() || undefined
const bound = setting(listener.host) ?? '127.0.0.1'
const host = { '0.0.0.0': '127.0.0.1', '::': '::1' }[bound] ?? bound
const isTls = setting(listener.certificate) !== undefined
// The certificate is for the name that clients use, and this asks a process of its own.
const options = { host, port: setting(listener.port) ?? listener.usual, path: '/health', rejectUnauthorized: false }
const request = (isTls ? https : http).get({ ...options, timeout: withinMs, agent: false }, answer => {
  if (answer.statusCode !== 200) fail(`/health answered ${answer.statusCode}`)
  process.exit(0)
})
request.on('timeout', () => fail(`no answer within ${withinMs} ms`))
request.on('error', error => fail(error.message))

function fail(reason: string): never {
  console.error(`${name} at ${host} port ${options.port}: ${reason}`)
  process.exit(1)
}
