// Wraps a store: each call is timed, and a call that fails counts towards an outage and rejects with `unavailable`.
import { AppError } from '../../../shared/http/errors.ts'
import { type DependencyOptions, watchDependency } from './storeHealth.ts'

export type StoreName = 'tokens' | 'users' | 'usage'

export interface StoreTelemetry extends DependencyOptions {
  /** Called before each call of a store; the function it returns is called when the call has finished. */
  startTimer(store: StoreName, call: string): (outcome: 'answered' | 'failed') => void
}

const dependencies = { tokens: 'token_store', users: 'user_store', usage: 'usage_store' } as const

/** `telemetry` is null in a command, which has neither metrics nor events. */
export function instrument<Store extends { close(): Promise<void> }>(
  store: Store,
  name: StoreName,
  telemetry: StoreTelemetry | null,
): Store {
  const dependency = dependencies[name]
  const health = telemetry && watchDependency(dependency, telemetry)

  const wrap =
    (call: string, method: (...args: unknown[]) => unknown) =>
    async (...args: unknown[]) => {
      const stopTimer = telemetry?.startTimer(name, call)
      try {
        const result = await method(...args)
        stopTimer?.('answered')
        if (isPartial(result)) health?.failed(new Error('a part of the store does not answer'))
        else health?.answered()
        return result
      } catch (cause) {
        stopTimer?.('failed')
        health?.failed(cause)
        throw new AppError('unavailable', `The ${dependency.replace('_', ' ')} is unavailable.`, { cause })
      }
    }

  // `close` keeps its own errors: they are for the operator, not for a client.
  const methods = Object.entries(store).map(([call, method]) => [call, call === 'close' ? method : wrap(call, method)])
  return Object.fromEntries(methods) as Store
}

/** Whether a batch has results that a part of the store, such as a shard, did not give. */
function isPartial(result: unknown): boolean {
  return Array.isArray(result) && result.includes('unavailable')
}
