// The adapter of packages/client for npm run conformance: reads and writes lines of JSON.
import { createInterface } from 'node:readline'
import type { Check } from '../../packages/client/guards.ts'
import { type OpenLatchkey, openLatchkey } from '../../packages/client/latchkey.ts'
import type { ClientAnswer, HeaderLines } from './runVector.ts'
import type { Need } from './vectors.ts'

type Message = { open: { url: string; key: string } } | { send: { id: number; headers: HeaderLines; needs?: Need[] }[] }

const write = (message: object) => process.stdout.write(`${JSON.stringify(message)}\n`)
const logLine = (event: string, { cause }: Record<string, unknown>) => console.error(event, String(cause ?? ''))
const log = { info: logLine, warn: logLine }
let client: OpenLatchkey | null = null

/** The guards of a request, one behind the other. */
function checksOf(needs: Need[], { guards }: OpenLatchkey): Check[] {
  const { requireToken, requireRole, requireScope } = guards(check => check)
  if (needs.length === 0) return [requireToken()]
  return needs.map(need => {
    const options = { shadow: need.shadow ?? false }
    return 'role' in need ? requireRole(need.role, options) : requireScope(need.scope, options)
  })
}

async function answerTo(headers: HeaderLines, checks: Check[]): Promise<ClientAnswer> {
  const [seen, request] = [{}, { rawHeaders: headers.flat() }]
  let [check, ...behind] = checks as [Check, ...Check[]]
  let outcome = await check(request, undefined, seen)
  for (check of behind) if (outcome.admission !== null) outcome = await check(request, undefined, seen)
  if (outcome.admission !== null) return { status: 200, headers: {}, admission: { ...outcome.admission } }
  const lowerCase = Object.entries(outcome.headers).map(([name, value]) => [name.toLowerCase(), value])
  return { status: outcome.status, headers: Object.fromEntries(lowerCase), problem: JSON.parse(outcome.body) }
}

for await (const line of createInterface(process.stdin)) {
  const message = JSON.parse(line) as Message
  if ('open' in message) {
    void client?.auth.close()
    client = openLatchkey({ ...message.open, log })
    write({ opened: true })
    continue
  }
  for (const { id, headers, needs = [] } of message.send) {
    void answerTo(headers, checksOf(needs, client as OpenLatchkey)).then(answer => write({ id, ...answer }))
  }
}
await client?.auth.close()
