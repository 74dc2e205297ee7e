// Who is calling, for those who hear of events: use cases neither know nor ask. Hides AsyncLocalStorage.
import { AsyncLocalStorage } from 'node:async_hooks'

export interface Caller {
  requestId: string
  address: string
  /** The setting that holds the key, of a call with one. */
  by?: string
  /** The user whose password it had wrong. */
  failedAt?: string
}

const callers = new AsyncLocalStorage<Caller>()

/** What `handle` does, also after it has answered, is done for this caller. */
export function asCaller<T>(caller: Caller, handle: () => T): T {
  return callers.run(caller, handle)
}

/** For what is told of this call later, by those who do not know users. */
export function noteFailure(userId: string | null): void {
  const caller = callers.getStore()
  if (caller && userId !== null) caller.failedAt = userId
}

/** Whom `noteFailure` was told of; null for nobody. */
export function failedUser(): string | null {
  return callers.getStore()?.failedAt ?? null
}

/** Empty for what no request asked for. */
export function callerNow(): Partial<Caller> {
  const caller = callers.getStore()
  if (caller === undefined) return {}
  const { requestId, address, by } = caller // the state of a request has more members
  return { requestId, address, ...(by !== undefined && { by }) }
}
