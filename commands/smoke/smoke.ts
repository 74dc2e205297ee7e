// npm run smoke: whether a deployment keeps the contract, asked from outside. See --help
import { readArguments, refuseUsage } from '../arguments.ts'
import { type Outcome, runChecks, type Target } from './checks.ts'

const usage = `Usage: npm run -s smoke -- --auth URL --business URL [options]

Walks the happy and the unhappy paths of the contract on a running deployment and says in words what is wrong with it.
Both URLs are the same where one address serves both. Ends with one line: N passed, N failed. Exit code 0, or 1 where
something failed; 2 for wrong usage.

  --username, --password   a user to log in as, for what needs a token; better SMOKE_USERNAME and SMOKE_PASSWORD in the
                           environment, which ps does not show. It gets two or three sessions, which are ended again,
                           and one wrong password; its other sessions are left alone
  --internal URL           the internal listener of Auth, where this machine may reach it
  --service-key            what opens it; better SERVICE_KEY in the environment
  --internal-ports LIST    ports that must be closed from here, 3100,3101 unless told; not asked on this machine itself
  --allow-http             http:// is no fault: the network between is your own
  --help                   this`

const marks: Record<Outcome, string> = { passed: '✔', failed: '✘', unchecked: '–' }

const target = readTarget()
const secrets = [target.user?.password, target.serviceKey].filter(secret => secret != null && secret.length >= 4)
const counts: Record<Outcome, number> = { passed: 0, failed: 0, unchecked: 0 }

await runChecks(target, (outcome, title, seen) => {
  counts[outcome]++
  // What the checks say holds none of them; what a deployment answers might.
  const line = secrets.reduce<string>((text, secret) => text.replaceAll(secret as string, '…'), `${title}: ${seen}`)
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
  if (auth === undefined || business === undefined) return refuseUsage(usage, '--auth and --business are needed.')
  const username = options.username ?? process.env['SMOKE_USERNAME']
  const password = options.password ?? process.env['SMOKE_PASSWORD']
  if ((username === undefined) !== (password === undefined))
    refuseUsage(usage, 'A username needs its password, and a password its username.')
  const serviceKey = options['service-key'] ?? process.env['SERVICE_KEY'] ?? null
  if (options['service-key'] !== undefined && internal === undefined) {
    refuseUsage(usage, '--service-key is for the internal listener: say where it is with --internal.')
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
