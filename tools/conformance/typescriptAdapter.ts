// The adapter of packages/client for npm run conformance: reads and writes lines of JSON.
import { createInterface } from 'node:readline'
import type { Check } from '../../packages/client/guards.ts'
import { type Latchkey, openLatchkey } from '../../packages/client/latchkey.ts'
import type { ClientAnswer, HeaderLines } from './runVector.ts'

type Message = { open: { url: string; key: string } } | { send: { id: number; headers: HeaderLines }[] }

const write = (message: object) => process.stdout.write(`${JSON.stringify(message)}\n`)
const logLine = (event: string, { cause }: Record<string, unknown>) => console.error(event, String(cause ?? ''))
const log = { info: logLine, warn: logLine }
let client: { auth: Latchkey; check: Check } | null = null

async function answerTo(headers: HeaderLines, check: Check): Promise<ClientAnswer> {
  const outcome = await check({ rawHeaders: headers.flat() })
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
  for (const { id, headers } of message.send) {
    void answerTo(headers, (client as { check: Check }).check).then(answer => write({ id, ...answer }))
  }
}
await client?.auth.close()
