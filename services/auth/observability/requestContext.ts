// The caller of the current request, for the event handlers; use cases need not pass it along. Hides AsyncLocalStorage.
import { AsyncLocalStorage } from 'node:async_hooks'

export interface Caller {
  requestId: string
  address: string
  /** The setting that holds the caller's key, if the call presented one. */
  by?: string
}

const callers = new AsyncLocalStorage<Caller>()

/** Runs `handle` on behalf of this caller, including work that it starts and that finishes after the response. */
export function asCaller<T>(caller: Caller, handle: () => T): T {
  return callers.run(caller, handle)
}

/** Empty outside a request. */
export function callerNow(): Partial<Caller> {
  const caller = callers.getStore()
  if (caller === undefined) return {}
  const { requestId, address, by } = caller // the stored object is the request's state, which has more members
  return { requestId, address, ...(by !== undefined && { by }) }
}
