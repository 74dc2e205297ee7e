// A typed value that a guard sets on a request for the handlers behind it.
import type { Context } from './types.ts'

export interface RequestValue<T> {
  set(ctx: Context, value: T): void
  /** Throws if no guard has set it. */
  of(ctx: Context): T
}

/** `name` must be unique among the guards of a listener. */
export function requestValue<T>(name: string): RequestValue<T> {
  return {
    set(ctx, value) {
      ctx.state[name] = value
    },
    of(ctx) {
      const value = ctx.state[name]
      if (value === undefined) throw new Error(`No guard of this route has set ${name}.`)
      return value as T // only `set` writes it
    },
  }
}
