// npm run smoke: checks from outside whether a deployment keeps the contract. See --help.
import { readArguments, refuseUsage } from '../arguments.ts'
import { type Outcome, runChecks, type Target } from './checks.ts'

const usage = `Usage: npm run -s smoke -- --auth URL --business URL [options]

Checks a running deployment against the contract, valid and invalid requests alike, and explains each failure. If one
address serves both services, give it twice. The last line is "N passed, N failed". The exit code is 0, 1 if a check
failed, or 2 for wrong usage.

  --username, --password   a user to log in with, for the checks that need a token. Prefer SMOKE_USERNAME and
                           SMOKE_PASSWORD in the environment, which ps does not show. The checks create two or three
                           sessions, end them again, and try one wrong password; other sessions are not affected
  --internal URL           the internal listener of Auth, if this machine can reach it
  --service-key            the service key, for --internal; prefer SERVICE_KEY in the environment
  --internal-ports LIST    ports that must be closed from here (default 3100,3101); not checked on this machine itself
  --allow-http             accept http://, if the network in between is your own
  --help                   show this`

const marks: Record<Outcome, string> = { passed: '✔', failed: '✘', unchecked: '–' }
const minSecretLength = 4 // hiding shorter secrets would garble the output

const target = readTarget()
const secrets = [target.user?.password ?? '', target.serviceKey ?? ''].filter(({ length }) => length >= minSecretLength)
const counts: Record<Outcome, number> = { passed: 0, failed: 0, unchecked: 0 }

await runChecks(target, (outcome, title, seen) => {
  counts[outcome]++
  // The checks themselves print no secret, but a response that they quote may contain one.
  const line = secrets.reduce((text, secret) => text.replaceAll(secret, '…'), `${title}: ${seen}`)
  console.log(`${marks[outcome]} ${line}`)
})
console.log(`\n${counts.passed} passed, ${counts.failed} failed`)
process.exitCode = counts.failed === 0 ? 0 : 1

function readTarget(): Target {
  const text = { type: 'string' } as const
  const options = readArguments(usage, {
    auth: text,
    business: text,
    internal: text,
    username: text,
    password: text,
    'service-key': text,
    'internal-ports': { ...text, default: '3100,3101' },
    'allow-http': { type: 'boolean', default: false },
  })
  const { auth, business, internal } = options
  if (auth === undefined || business === undefined) return refuseUsage(usage, '--auth and --business are required.')
  const username = options.username ?? process.env['SMOKE_USERNAME']
  const password = options.password ?? process.env['SMOKE_PASSWORD']
  if ((username === undefined) !== (password === undefined))
    refuseUsage(usage, '--username and --password must be given together.')
  const serviceKey = options['service-key'] ?? process.env['SERVICE_KEY'] ?? null
  if (options['service-key'] !== undefined && internal === undefined) {
    refuseUsage(usage, '--service-key is for the internal listener: give its address with --internal.')
  }
  const ports = options['internal-ports'].split(',').map(Number)
  if (ports.some(port => !Number.isInteger(port) || port < 1 || port > 65_535)) {
    refuseUsage(usage, '--internal-ports: expected ports from 1 to 65535, separated by commas.')
  }
  return {
    auth: originOf('--auth', auth),
    business: originOf('--business', business),
    internal: internal === undefined ? null : originOf('--internal', internal),
    internalPorts: ports,
    user: username !== undefined && password !== undefined ? { username, password } : null,
    serviceKey,
    allowsHttp: options['allow-http'],
  }
}

function originOf(option: string, text: string): string {
  const url = URL.parse(text)
  if (url === null || !/^https?:$/.test(url.protocol) || url.pathname !== '/' || url.search || url.username) {
    return refuseUsage(usage, `${option}: expected an address such as https://auth.example.com, without a path.`)
  }
  return url.origin
}
