// The metrics of Business: its calls to Auth, and how many requests share a call.
import { Counter, Gauge, Histogram, type Registry } from '@prometheus-io/client'
import type { AuthCall, AuthClient } from '../../packages/client/authClient.ts'
import type { ShadowRefusal } from '../../packages/client/shadowRules.ts'

export function countCalls(registry: Registry): (call: AuthCall) => void {
  const registers = [registry]
  const sizes = new Histogram({
    name: 'latchkey_batch_size',
    help: 'Requests that shared a call to Auth',
    buckets: [1, 2, 4, 8, 16, 32, 64, 128, 255],
    registers,
  })
  const durations = new Histogram({
    name: 'latchkey_auth_call_duration_seconds',
    help: 'Calls to Auth, by whether they gave verdicts',
    labelNames: ['outcome'],
    buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1],
    registers,
  })
  return ({ requests, durationMs, failed }) => {
    if (requests > 0) sizes.observe(requests) // a call for held tokens alone has none
    durations.observe({ outcome: failed ? 'failed' : 'answered' }, durationMs / 1000)
  }
}

export function showCallsInFlight(registry: Registry, callsInFlight: () => number): void {
  new Gauge({
    name: 'latchkey_auth_calls_in_flight',
    help: 'Calls to Auth that are not answered yet',
    registers: [registry],
    collect() {
      this.set(callsInFlight())
    },
  })
}

export function showHolds(registry: Registry, holds: () => number): void {
  new Gauge({
    name: 'latchkey_holds',
    help: 'Open connections of this process whose token is held',
    registers: [registry],
    collect() {
      this.set(holds())
    },
  })
}

export function showAuths(registry: Registry, auths: AuthClient['auths']): void {
  new Gauge({
    name: 'latchkey_auths',
    help: 'Auths that this process knows, by whether it sends them calls; an ejected one has failed and is probed',
    labelNames: ['state'],
    aggregator: 'max', // all processes know the same Auths
    registers: [registry],
    collect() {
      for (const [state, count] of Object.entries(auths())) this.set({ state }, count)
    },
  })
}

/** Auth has a metric of the same name. */
export function countLimited(registry: Registry): (event: { what: string }) => void {
  const limited = new Counter({
    name: 'latchkey_rate_limited_total',
    help: 'Requests answered 429, by the limit that was reached',
    labelNames: ['limit'],
    registers: [registry],
  })
  return ({ what }) => limited.inc({ limit: what })
}

/** `rules` are the labels of all rules in the shadow: a rule that has counted nothing is shown as 0. */
export function countShadowRefusals(registry: Registry, rules: readonly string[]): (refusal: ShadowRefusal) => void {
  const unmet = new Counter({
    name: 'latchkey_shadow_refusals_total',
    help: 'Requests that a rule in the shadow would have refused',
    labelNames: ['rule'],
    registers: [registry],
  })
  for (const rule of rules) unmet.inc({ rule }, 0)
  return ({ rule }) => unmet.inc({ rule })
}
