// The health check of the images. Uses `/health`, not `/ready`: an outage of a store is no reason to restart. Reads the settings
// without the configuration module, because this command runs every ten seconds and must start fast.
import http from 'node:http'
import https from 'node:https'
import { refuseUsage } from './arguments.ts'

const usage = `Usage: node commands/healthcheck.ts auth | business | authInternal

Requests /health from this listener, at the address in the settings. Exit code 0 if the answer is 200, otherwise 1.`

const listeners: Record<string, { port: string; default: string; host: string; certificate: string }> = {
  auth: { port: 'AUTH_PORT', default: '3001', host: 'HOST', certificate: 'TLS_CERT_FILE' },
  business: { port: 'BUSINESS_PORT', default: '3000', host: 'HOST', certificate: 'TLS_CERT_FILE' },
  authInternal: {
    port: 'AUTH_INTERNAL_PORT',
    default: '3101',
    host: 'INTERNAL_HOST',
    certificate: 'INTERNAL_TLS_CERT_FILE',
  },
}
const timeoutMs = 1500

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
// The certificate is valid for the public name, not for the address used here.
const options = { host, port: setting(listener.port) ?? listener.default, path: '/health', rejectUnauthorized: false }
const request = (isTls ? https : http).get({ ...options, timeout: timeoutMs, agent: false }, answer => {
  if (answer.statusCode !== 200) fail(`/health answered ${answer.statusCode}`)
  process.exit(0)
})
request.on('timeout', () => fail(`no answer within ${timeoutMs} ms`))
request.on('error', error => fail(error.message))

function fail(reason: string): never {
  console.error(`${name} at ${host} port ${options.port}: ${reason}`)
  process.exit(1)
}
