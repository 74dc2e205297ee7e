// Auth's own metrics, derived from events and from figures read at scrape time. Names follow the Prometheus
// conventions: base units, and `_total` for counters.
import { Counter, Gauge, Histogram, type Registry } from '@prometheus-io/client'
import type { TokenKind } from '../../../packages/client/contract.ts'
import type { AuthEvent } from './events.ts'
import type { StoreTelemetry } from './instrument.ts'

export interface AuthFigures {
  /** Password hashes that wait for a thread. */
  queuedHashes(): number
  /** The work done on passwords so far, in hashes of the configured cost. */
  hashes(): number
  /** Tokens in the store by kind, from counts that the store has without a scan. */
  counts(): Promise<Record<TokenKind, number>>
}

export function countEvents(registry: Registry): (event: AuthEvent) => void {
  const registers = [registry]
  const counter = (name: string, help: string, labelNames: string[] = []) =>
    new Counter({ name: `latchkey_${name}_total`, help, labelNames, registers })
  const logins = counter('logins', 'Log-ins by outcome', ['outcome'])
  const issued = counter('tokens_issued', 'Tokens issued, by kind', ['kind'])
  const revoked = counter('tokens_revoked', 'Tokens revoked one by one')
  const renewed = counter('tokens_renewed', 'Sessions that got a new secret')
  const reused = counter('renewed_secrets_reused', 'Sessions ended or paused because an earlier secret was used')
  const canaries = counter('canaries_used', 'Uses of canaries, keys that open nothing')
  const validations = counter('validations', 'Validated tokens, by verdict and reason of the refusal', [
    'verdict',
    'reason',
  ])
  const swept = counter('tokens_swept', 'Dead tokens removed by the sweeper')
  const limited = counter('rate_limited', 'Requests answered 429, by the limit that was reached', ['limit'])
  const mails = counter('mails', 'Mails by outcome', ['outcome'])
  for (const outcome of ['sent', 'lost']) mails.inc({ outcome }, 0) // otherwise an alert would miss the first lost mail
  const keyUses = counter('key_uses', 'Calls to the internal listener, by the setting that holds their key', ['key'])
  const sweeps = new Histogram({
    name: 'latchkey_sweep_duration_seconds',
    help: 'Duration of sweeps, including the pauses between slices',
    buckets: [0.001, 0.01, 0.1, 1, 10, 60],
    registers,
  })
  const skew = new Gauge({
    name: 'latchkey_clock_skew_seconds',
    help: "How far this machine's clock is ahead of the token store's; 0 if the store has no clock of its own",
    aggregator: 'average', // all processes compare the same two clocks
    registers,
  })
  const admitted = validations.labels({ verdict: 'admitted', reason: '' })

  return event => {
    switch (event.type) {
      case 'slid':
        return admitted.inc()
      case 'refused':
        return validations.inc({ verdict: 'refused', reason: event.reason })
      case 'login_succeeded':
        return logins.inc({ outcome: 'succeeded' })
      case 'login_failed':
        return logins.inc({ outcome: event.reason })
      case 'issued':
        return issued.inc({ kind: event.kind })
      case 'revoked':
        return revoked.inc()
      case 'renewed':
        return renewed.inc()
      case 'renewed_secret_reused':
        return reused.inc()
      case 'canary_used':
        return canaries.inc()
      case 'swept':
        swept.inc(event.removed)
        return sweeps.observe(event.durationMs / 1000)
      case 'rate_limited':
        return limited.inc({ limit: event.what })
      case 'key_used':
        return keyUses.inc({ key: event.key })
      case 'clock_compared':
        return skew.set(event.skewMs / 1000)
      case 'mail_sent':
        return mails.inc({ outcome: 'sent' })
      case 'mail_lost':
        return mails.inc({ outcome: 'lost' })
    }
  }
}

export function showFigures(registry: Registry, { queuedHashes, hashes, counts }: AuthFigures): void {
  new Gauge({
    name: 'latchkey_hash_queue_length',
    help: 'Password hashes that wait for a thread',
    registers: [registry],
    collect() {
      this.set(queuedHashes())
    },
  })
  new Counter({
    name: 'latchkey_hashes_total',
    help: 'Work done on passwords, in hashes of PASSWORD_HASH_COST',
    registers: [registry],
    collect() {
      this.reset()
      this.inc(hashes())
    },
  })
  new Gauge({
    name: 'latchkey_tokens',
    help: 'Tokens in the store by kind; dead tokens count until they are swept',
    labelNames: ['kind'],
    aggregator: 'max', // all processes count the same store
    registers: [registry],
    async collect() {
      // If the store is unreachable, the other metrics must still be readable.
      const known = await counts().catch(() => null)
      if (known) for (const [kind, count] of Object.entries(known)) this.set({ kind }, count)
      else this.reset()
    },
  })
}

/** Times the calls of the stores; see `instrument`. */
export function storeTimer(registry: Registry): StoreTelemetry['startTimer'] {
  const calls = new Histogram({
    name: 'latchkey_store_duration_seconds',
    help: 'Duration of calls to the stores',
    labelNames: ['store', 'call', 'outcome'],
    buckets: [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1],
    registers: [registry],
  })
  return (store, call) => {
    const stop = calls.startTimer({ store, call })
    return outcome => void stop({ outcome })
  }
}
