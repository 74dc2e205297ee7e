// Whether what Auth depends on can be used: told once when it cannot, and once when it can again. Hides how an outage is told
// from a single failure among answers.
import type { MailEvent } from '../users/mail.ts'

export type DependencyEvent =
  | { type: 'dependency_failed'; dependency: Dependency; cause: unknown }
  | { type: 'dependency_recovered'; dependency: Dependency; failures: number }

export type Dependency = 'token store' | 'user store' | 'mail server'

export interface DependencyOptions {
  /** Milliseconds that never jump. */
  monotonicNow: () => number
  observe: (event: DependencyEvent) => void
}

/** Of a store that refuses writes and answers reads, the outage is one: it ends once nothing has failed for so long. */
const steadyMs = 5000

function watchDependency(dependency: Dependency, { monotonicNow, observe }: DependencyOptions) {
  let failures = 0
  let failedAt = 0

  return {
    failed(cause: unknown): void {
      failedAt = monotonicNow()
      if (failures++ === 0) observe({ type: 'dependency_failed', dependency, cause })
    },

    answered(): void {
      if (failures === 0 || monotonicNow() - failedAt < steadyMs) return
      observe({ type: 'dependency_recovered', dependency, failures })
      failures = 0
    },
  }
}

/** The same store; `begin` hears of each call, and what it gives back of the end: with the failure, or with null. */
export function heard<Store extends object>(
  store: Store,
  begin: (call: string) => (failure: { cause: unknown } | null) => void,
): Store {
  const methods = Object.entries(store).map(([call, method]) => {
    if (typeof method !== 'function') return [call, method]
    const heardMethod = async (...args: unknown[]) => {
      const end = begin(call)
      try {
        const answer = await method(...args)
        end(null)
        return answer
      } catch (cause) {
        end({ cause })
        throw cause
      }
    }
    return [call, heardMethod]
  })
  return Object.fromEntries(methods) as Store
}

/** The same store; a promise of it that rejects is a failure. */
export function watched<Store extends object>(store: Store, dependency: Dependency, options: DependencyOptions): Store {
  const { failed, answered } = watchDependency(dependency, options)
  return heard(store, () => failure => (failure === null ? answered() : failed(failure.cause)))
}

const askEveryMs = 1000

/** Whether what `ask` asks answers. Asked once a second at most, whoever wants to know: anybody may. Never rejects. */
export function probe(ask: () => Promise<unknown>, monotonicNow: () => number): () => Promise<boolean> {
  let askedAt = -Infinity
  let answers = Promise.resolve(true)
  return () => {
    if (monotonicNow() - askedAt >= askEveryMs) {
      askedAt = monotonicNow()
      answers = ask().then(
        () => true,
        () => false,
      )
    }
    return answers
  }
}

/** Of nodemailer, where it could not speak with the server; what a server says of one mail is no outage. */
const unreachable = /^(ESOCKET|EDNS|ETLS|ECONNECTION|ETIMEDOUT|EAUTH)$/

/** Hears what became of mails, and passes it on. */
export function watchedMails(observe: (event: MailEvent) => void, options: DependencyOptions) {
  const { failed, answered } = watchDependency('mail server', options)
  return (event: MailEvent) => {
    observe(event)
    if (event.type === 'mail_sent') answered()
    else if (unreachable.test(String((event.cause as { code?: unknown }).code))) failed(event.cause)
  }
}
