// What the charts show, second by second, from two readings of /metrics. Hides Prometheus's text and how a quantile is
// guessed from buckets.
const kept = 60
export const kinds = ['sliding', 'fixed', 'single-use']

/**
 * @typedef {object} Sample Null: there is nothing to say of this second.
 * @property {Record<string, number>} tokens In the store, by kind; the dead until they are swept.
 * @property {number | null} logins Succeeded, a second.
 * @property {number | null} failedLogins
 * @property {number | null} admitted Verdicts a second.
 * @property {number | null} refused
 * @property {number | null} batch Verdicts for each call of /validateToken.
 * @property {number | null} p50 Of a call of /validateToken, in milliseconds.
 * @property {number | null} p99
 * @property {number | null} swept Removed in this second.
 */

/** @typedef {{ at: number, values: Map<string, number> }} Reading */

export function createFigures() {
  /** @type {Sample[]} */
  const samples = []
  /** @type {Reading | null} */
  let before = null

  /** @param {string} text Of /metrics. @param {number} at Milliseconds, of any origin. */
  function hear(text, at) {
    const reading = { at, values: parse(text) }
    if (before) samples.push(sampleOf(before, reading))
    if (samples.length > kept) samples.shift()
    before = reading
  }

  return { samples, hear }
}

/** @param {string} text */
function parse(text) {
  /** @type {Map<string, number>} */
  const values = new Map()
  for (const line of text.split('\n')) {
    if (!line.startsWith('latchkey_')) continue
    const space = line.lastIndexOf(' ')
    values.set(line.slice(0, space), Number(line.slice(space + 1)))
  }
  return values
}

/** @param {Reading} before @param {Reading} after @returns {Sample} */
function sampleOf(before, after) {
  const seconds = (after.at - before.at) / 1000
  /** @param {RegExp} series Null after a restart of Auth, when counters begin anew. */
  const grown = series => {
    const by = sumOf(after.values, series) - sumOf(before.values, series)
    return by < 0 ? null : by
  }
  /** @param {RegExp} series */
  const rate = series => {
    const by = grown(series)
    return by === null ? null : by / seconds
  }
  const calls = grown(/^latchkey_http_request_duration_seconds_count\{.*route="\/validateToken"/)
  const verdicts = grown(/^latchkey_validations_total\{/)
  const buckets = bucketsOf(before.values, after.values)
  return {
    tokens: Object.fromEntries(kinds.map(kind => [kind, after.values.get(`latchkey_tokens{kind="${kind}"}`) ?? 0])),
    logins: rate(/^latchkey_logins_total\{outcome="succeeded"/),
    failedLogins: rate(/^latchkey_logins_total\{outcome="(?!succeeded)/),
    admitted: rate(/^latchkey_validations_total\{.*verdict="admitted"/),
    refused: rate(/^latchkey_validations_total\{.*verdict="refused"/),
    batch: calls && verdicts !== null ? verdicts / calls : null,
    p50: quantile(buckets, 0.5),
    p99: quantile(buckets, 0.99),
    swept: grown(/^latchkey_tokens_swept_total/),
  }
}

/** @param {Map<string, number>} values @param {RegExp} series */
function sumOf(values, series) {
  let sum = 0
  for (const [name, value] of values) if (series.test(name)) sum += value
  return sum
}

/**
 * Upper bound in milliseconds and how many calls were below it, in order.
 * @param {Map<string, number>} before @param {Map<string, number>} after
 */
function bucketsOf(before, after) {
  /** @type {Map<number, number>} */
  const counts = new Map()
  for (const [name, value] of after) {
    if (!/^latchkey_http_request_duration_seconds_bucket\{.*route="\/validateToken"/.test(name)) continue
    const [, le = ''] = /le="([^"]+)"/.exec(name) ?? []
    const bound = le === '+Inf' ? Infinity : Number(le) * 1000
    counts.set(bound, (counts.get(bound) ?? 0) + value - (before.get(name) ?? 0))
  }
  return [...counts].sort(([a], [b]) => a - b)
}

/**
 * As Prometheus's histogram_quantile: on a straight line within the bucket.
 * @param {[number, number][]} buckets @param {number} share
 */
function quantile(buckets, share) {
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
