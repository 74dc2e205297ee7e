// Preloaded into Business: replaces its guard by guard.ts. All else is Business as it is, with its limits and metrics, so
// that the check is the only difference between two rows.
import { registerHooks } from 'node:module'

const guard = new URL('./guard.ts', import.meta.url).href

registerHooks({
  resolve(specifier, context, nextResolve) {
    const resolved = nextResolve(specifier, context)
    return resolved.url.endsWith('/services/business/requireToken.ts') ? { ...resolved, url: guard } : resolved
  },
})
