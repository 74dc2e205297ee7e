// The caller of the current request, for the event handlers; use cases need not pass it along. Hides AsyncLocalStorage.
import { AsyncLocalStorage } from 'node:async_hooks'

export interface Caller {
  requestId: string
  address: string
  /** The setting that holds the caller's key, once a guard has accepted it. */
  by?: string
}

const callers = new AsyncLocalStorage<Caller>()

/** Runs `handle` on behalf of this caller, including work that it starts and that finishes after the response. */
export function runAsCaller<T>({ requestId, address }: Caller, handle: () => T): T {
  return callers.run({ requestId, address }, handle)
}

/** Records which key the current caller has presented. */
export function setCallerKey(setting: string): void {
  const caller = callers.getStore()
  if (caller) caller.by = setting
}

/** Empty outside a request. */
export function currentCaller(): Partial<Caller> {
  return callers.getStore() ?? {}
}
