// Reports outages of the stores and the mail server: one event when a dependency fails and one when it recovers. Hides
// how intermittent failures are merged into one outage.
import { everySecond } from '../../../packages/client/everySecond.ts'
import type { MailEvent } from '../users/mail.ts'

export type DependencyEvent =
  | { type: 'dependency_failed'; dependency: Dependency; cause: unknown }
  | { type: 'dependency_recovered'; dependency: Dependency; failures: number }

export type Dependency = 'token_store' | 'user_store' | 'usage_store' | 'mail_server'

export interface DependencyOptions {
  /** Monotonic milliseconds. */
  monotonicNow: () => number
  emit: (event: DependencyEvent) => void
}

/**
 * An outage ends once there has been no failure for this long. A store that refuses writes but answers reads therefore
 * has one outage, not many.
 */
const steadyMs = 5000

/** Merges the failures of a dependency into outages, and reports the beginning and the end of each. */
export function watchDependency(dependency: Dependency, { monotonicNow, emit }: DependencyOptions) {
  let failures = 0
  let failedAt = 0

  return {
    failed(cause: unknown): void {
      failedAt = monotonicNow()
      if (failures++ === 0) emit({ type: 'dependency_failed', dependency, cause })
    },

    answered(): void {
      if (failures === 0 || monotonicNow() - failedAt < steadyMs) return
      emit({ type: 'dependency_recovered', dependency, failures })
      failures = 0
    },
  }
}

/** Whether `ask` resolved when it was last called, at most a second ago. Never rejects. */
export function probe(ask: () => Promise<unknown>, monotonicNow: () => number): () => Promise<boolean> {
  const answers = () =>
    ask().then(
      () => true,
      () => false,
    )
  return everySecond(answers, monotonicNow)
}

/**
 * nodemailer's codes for an unreachable server or a failed log-in. A server that rejects a single mail is not an outage.
 */
const unreachable = /^(ESOCKET|EDNS|ETLS|ECONNECTION|ETIMEDOUT|EAUTH)$/

/** Passes mail events on to `emit`, and derives outages of the mail server from them. */
export function watchMailServer(emit: (event: MailEvent) => void, options: DependencyOptions) {
  const { failed, answered } = watchDependency('mail_server', options)
  return (event: MailEvent) => {
    emit(event)
    if (event.type === 'mail_sent') answered()
    else if (unreachable.test(String((event.cause as { code?: unknown }).code))) failed(event.cause)
  }
}
