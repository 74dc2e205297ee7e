// Runs the smoke test. Hides how the target is read from the options and how results are shown.
import type { Action, Invocation } from '../commandLine.ts'
import { printJson } from '../text.ts'
import { type Outcome, runChecks, type Target } from './checks.ts'

const marks: Record<Outcome, string> = { passed: '✔', failed: '✘', unchecked: '–' }
const minSecretLength = 4 // hiding shorter secrets would garble the output

/** Checks the deployment at the given addresses, or without addresses that of this folder. */
export const doctor: Action = async invocation => {
  const { textOf, isSet, refuse } = invocation
  if (textOf('auth') !== null || textOf('business') !== null) return report(readTarget(invocation), invocation)
  const local = (await import('./localTarget.ts')).readLocalTarget()
  if (isSet('allowHttp') || textOf('internal') !== null || textOf('serviceKey') !== null) {
    refuse('--allow-http, --internal and --service-key need --auth and --business.')
  }
  return report({ ...local, user: readUser(invocation) ?? local.user }, invocation)
}

async function report(target: Target, { isSet }: Invocation): Promise<void> {
  const secrets = [target.user?.password ?? '', target.serviceKey ?? ''].filter(
    ({ length }) => length >= minSecretLength,
  )
  // The checks themselves print no secret, but a response that they quote may contain one.
  const hide = (text: string) => secrets.reduce((hidden, secret) => hidden.replaceAll(secret, '…'), text)
  const counts: Record<Outcome, number> = { passed: 0, failed: 0, unchecked: 0 }
  await runChecks(target, (outcome, title, seen) => {
    counts[outcome]++
    if (isSet('json')) printJson({ outcome, title, seen: hide(seen) })
    else console.log(`${marks[outcome]} ${hide(`${title}: ${seen}`)}`)
  })
  if (isSet('json')) printJson(counts)
  else console.log(`\n${counts.passed} passed, ${counts.failed} failed`)
  process.exitCode = counts.failed === 0 ? 0 : 1
}

function readTarget(invocation: Invocation): Target {
  const { textOf, isSet, refuse } = invocation
  const [auth, business, internal] = [textOf('auth'), textOf('business'), textOf('internal')]
  if (auth === null || business === null) return refuse('--auth and --business are required.')
  const user = readUser(invocation)
  if (textOf('serviceKey') !== null && internal === null) {
    refuse('--service-key is for the internal listener: give its address with --internal.')
  }
  const ports = (textOf('internalPorts') ?? '').split(',').map(Number)
  if (ports.some(port => !Number.isInteger(port) || port < 1 || port > 65_535)) {
    refuse('--internal-ports: expected ports from 1 to 65535, separated by commas.')
  }
  return {
    auth: originOf('--auth', auth, refuse),
    business: originOf('--business', business, refuse),
    internal: internal === null ? null : originOf('--internal', internal, refuse),
    internalPorts: ports,
    user,
    serviceKey: textOf('serviceKey') ?? process.env['SERVICE_KEY'] ?? null,
    allowsHttp: isSet('allowHttp'),
  }
}

function readUser({ textOf, refuse }: Invocation): Target['user'] {
  const username = textOf('username') ?? process.env['SMOKE_USERNAME']
  const password = textOf('password') ?? process.env['SMOKE_PASSWORD']
  if ((username === undefined) !== (password === undefined)) {
    refuse('--username and --password must be given together.')
  }
  return username !== undefined && password !== undefined ? { username, password } : null
}

function originOf(option: string, text: string, refuse: Invocation['refuse']): string {
  const url = URL.parse(text)
  if (url === null || !/^https?:$/.test(url.protocol) || url.pathname !== '/' || url.search || url.username) {
    return refuse(`${option}: expected an address such as https://auth.example.com, without a path.`)
  }
  return url.origin
}
