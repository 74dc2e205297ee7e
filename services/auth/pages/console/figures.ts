// What the charts show for each second, computed from two readings of /metrics. Hides Prometheus's text format and how a
// quantile is estimated from buckets.
import { useEffect, useState } from 'preact/hooks'
import type { TokenKind } from '../../../../packages/client/contract.ts'

const maxSamples = 60
export const kinds: readonly TokenKind[] = ['sliding', 'fixed', 'single-use']

/** A member is null if there is no value for this second. */
export interface Sample {
  /** Tokens in the store by kind. Dead tokens count until they are swept. */
  tokens: Record<TokenKind, number>
  /** Successful log-ins per second. */
  logins: number | null
  failedLogins: number | null
  /** Verdicts per second. */
  admitted: number | null
  refused: number | null
  /** Verdicts per call of /validateToken. */
  batch: number | null
  /** Duration of a call of /validateToken in milliseconds. */
  p50: number | null
  p99: number | null
  /** Tokens removed in this second. */
  swept: number | null
}

interface Reading {
  at: number
  values: Map<string, number>
}

/** The samples of the last minute, the oldest first. Reads /metrics once a second. */
export function useFigures(): Sample[] {
  const [samples, setSamples] = useState<Sample[]>([])
  useEffect(() => {
    let previous: Reading | null = null
    let isReading = false
    async function read() {
      const answer = await fetch('metrics', { cache: 'no-store' })
      if (!answer.ok) return
      const reading = { at: performance.now(), values: parse(await answer.text()) }
      const before = previous
      previous = reading
      if (before) setSamples(samples => [...samples, sampleOf(before, reading)].slice(-maxSamples))
    }
    const timer = setInterval(async () => {
      if (isReading) return
      isReading = true
      await read().catch(() => {}) // the event stream reports that Auth does not answer
      isReading = false
    }, 1000)
    return () => clearInterval(timer)
  }, [])
  return samples
}

function parse(metrics: string): Map<string, number> {
  const values = new Map<string, number>()
  for (const line of metrics.split('\n')) {
    if (!line.startsWith('latchkey_')) continue
    const space = line.lastIndexOf(' ')
    values.set(line.slice(0, space), Number(line.slice(space + 1)))
  }
  return values
}

function sampleOf(before: Reading, after: Reading): Sample {
  const seconds = (after.at - before.at) / 1000
  /** Null after a restart of Auth, because counters start again at 0. */
  const growth = (series: RegExp) => {
    const by = sumOf(after.values, series) - sumOf(before.values, series)
    return by < 0 ? null : by
  }
  const rate = (series: RegExp) => {
    const by = growth(series)
    return by === null ? null : by / seconds
  }
  const tokensOf = (kind: TokenKind) => after.values.get(`latchkey_tokens{kind="${kind}"}`) ?? 0
  const calls = growth(/^latchkey_http_request_duration_seconds_count\{.*route="\/validateToken"/)
  const verdicts = growth(/^latchkey_validations_total\{/)
  const buckets = bucketsOf(before.values, after.values)
  return {
    tokens: { sliding: tokensOf('sliding'), fixed: tokensOf('fixed'), 'single-use': tokensOf('single-use') },
    logins: rate(/^latchkey_logins_total\{outcome="succeeded"/),
    failedLogins: rate(/^latchkey_logins_total\{outcome="(?!succeeded)/),
    admitted: rate(/^latchkey_validations_total\{.*verdict="admitted"/),
    refused: rate(/^latchkey_validations_total\{.*verdict="refused"/),
    batch: calls && verdicts !== null ? verdicts / calls : null,
    p50: quantile(buckets, 0.5),
    p99: quantile(buckets, 0.99),
    swept: growth(/^latchkey_tokens_swept_total/),
  }
}

function sumOf(values: Map<string, number>, series: RegExp): number {
  let sum = 0
  for (const [name, value] of values) if (series.test(name)) sum += value
  return sum
}

type Bucket = [upperBoundMs: number, callsBelow: number]

/** The calls of /validateToken between two readings, by bucket, in ascending order. */
function bucketsOf(before: Map<string, number>, after: Map<string, number>): Bucket[] {
  const counts = new Map<number, number>()
  for (const [name, value] of after) {
    if (!/^latchkey_http_request_duration_seconds_bucket\{.*route="\/validateToken"/.test(name)) continue
    const [, le = ''] = /le="([^"]+)"/.exec(name) ?? []
    const bound = le === '+Inf' ? Infinity : Number(le) * 1000
    counts.set(bound, (counts.get(bound) ?? 0) + value - (before.get(name) ?? 0))
  }
  return [...counts].sort(([a], [b]) => a - b)
}

/** Interpolates linearly within the bucket, like histogram_quantile of Prometheus. */
function quantile(buckets: Bucket[], share: number): number | null {
  const all = buckets.at(-1)?.[1] ?? 0
  if (all <= 0) return null
  let [lower, below] = [0, 0]
  for (const [bound, count] of buckets) {
    if (count >= all * share) {
      return bound === Infinity ? lower : lower + (bound - lower) * ((all * share - below) / (count - below || 1))
    }
    ;[lower, below] = [bound, count]
  }
  return null
}
