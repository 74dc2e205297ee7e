// Drives a server over many connections, with several requests in turn. Uses wrk if it is installed, otherwise autocannon.
import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import autocannon from 'autocannon'

export interface LoadRequest {
  method?: 'GET' | 'POST'
  headers: Record<string, string>
  body?: string
}

export interface Load {
  url: string
  connections: number
  seconds: number
  /** Sent in turn. */
  requests: LoadRequest[]
}

export interface LoadResult {
  requests: number
  perSecond: number
  /** Milliseconds. */
  p50: number
  p99: number
  max: number
  /** Answers other than 2xx, and connections that broke. */
  errors: number
}

const hasWrk = spawnSync('wrk', ['--version']).error === undefined
export const loadTool = hasWrk ? 'wrk' : 'autocannon'

/** One GET for each token. */
export function withTokens(tokens: string[]): LoadRequest[] {
  return tokens.map(token => ({ headers: { Authorization: `Bearer ${token}` } }))
}

/** Calls for the verdicts on `size` tokens each. There are 16 of them; their tokens overlap from 16 tokens a call on. */
export function callsWith(tokens: string[], size: number, serviceKey: string): LoadRequest[] {
  const headers = { Authorization: `Bearer ${serviceKey}`, 'Content-Type': 'application/json' }
  return Array.from({ length: 16 }, (_, i) => {
    const asked = Array.from({ length: size }, (_, j) => tokens[(i * 15 + j) % tokens.length])
    return { method: 'POST', headers, body: JSON.stringify({ tokens: asked }) }
  })
}

export function drive(load: Load): Promise<LoadResult> {
  return hasWrk ? driveWithWrk(load) : driveWithAutocannon(load)
}

async function driveWithWrk({ url, connections, seconds, requests: toSend }: Load): Promise<LoadResult> {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-bench-'))
  const script = join(folder, 'load.lua')
  const formatted = toSend.map(({ method = 'GET', headers, body }) => {
    const fields = Object.entries(headers).map(([name, value]) => `[${quote(name)}]=${quote(value)}`)
    return `wrk.format(${quote(method)}, nil, {${fields.join(',')}}, ${body === undefined ? 'nil' : quote(body)})`
  })
  writeFileSync(
    script,
    `local requests, at = {}, 0
init = function()
${formatted.map((format, i) => `  requests[${i + 1}] = ${format}`).join('\n')}
end
request = function() at = at % #requests + 1; return requests[at] end
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"requests":%d,"micros":%d,"p50":%d,"p99":%d,"max":%d,"errors":%d}\\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.status + e.connect + e.read + e.write + e.timeout))
end
`,
  )
  const args = ['-t1', `-c${connections}`, `-d${seconds}s`, '--timeout', '10s', '-s', script, url]
  const { stdout } = await promisify(execFile)('wrk', args)
  rmSync(folder, { recursive: true })
  const result = JSON.parse(/^RESULT (.*)$/m.exec(stdout)?.[1] ?? 'null') as Record<string, number> | null
  if (result === null) throw new Error(`wrk said:\n${stdout}`)
  const { requests = 0, micros = 1, p50 = 0, p99 = 0, max = 0, errors = 0 } = result
  return { requests, perSecond: requests / (micros / 1e6), p50: p50 / 1e3, p99: p99 / 1e3, max: max / 1e3, errors }
}

/** A Lua string. JSON writes the same escapes, as long as the text is ASCII. */
function quote(text: string): string {
  return JSON.stringify(text)
}

async function driveWithAutocannon({ url, connections, seconds, requests }: Load): Promise<LoadResult> {
  const result = await autocannon({ url, connections, duration: seconds, requests })
  return {
    requests: result.requests.total,
    perSecond: result.requests.average,
    p50: result.latency.p50,
    p99: result.latency.p99,
    max: result.latency.max,
    errors: result.errors + result.non2xx,
  }
}

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? Number(sorted[middle]) : (Number(sorted[middle - 1]) + Number(sorted[middle])) / 2
}
