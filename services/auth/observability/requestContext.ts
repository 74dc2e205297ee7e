// The caller of the current request, for the event handlers; use cases need not pass it along. Hides AsyncLocalStorage.
import { AsyncLocalStorage } from 'node:async_hooks'

export interface Caller {
  requestId: string
  address: string
  /** The setting that holds the caller's key, if the call presented one. */
  by?: string
  /** The user for whom the caller presented a wrong password. */
  failedAt?: string
}

const callers = new AsyncLocalStorage<Caller>()

/** Runs `handle` on behalf of this caller, including work that it starts and that finishes after the response. */
export function asCaller<T>(caller: Caller, handle: () => T): T {
  return callers.run(caller, handle)
}

/** Records the user for later events of this request whose emitters do not know the user. */
export function noteFailure(userId: string | null): void {
  const caller = callers.getStore()
  if (caller && userId !== null) caller.failedAt = userId
}

/** The user recorded by `noteFailure`, or null. */
export function failedUser(): string | null {
  return callers.getStore()?.failedAt ?? null
}

/** Empty outside a request. */
export function callerNow(): Partial<Caller> {
  const caller = callers.getStore()
  if (caller === undefined) return {}
  const { requestId, address, by } = caller // the stored object is the request's state, which has more members
  return { requestId, address, ...(by !== undefined && { by }) }
}
