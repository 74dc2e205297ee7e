// Loaded before a service with `--import`. Puts each module of this folder in place of the module that it wraps.
import { registerHooks } from 'node:module'
import { pathToFileURL } from 'node:url'

/** Wrapper in this folder -> the module it replaces. */
const seams = {
  './stores.ts': 'services/auth/stores/index.ts',
  './snapshot.ts': 'services/auth/stores/memory/snapshot.ts',
  './authClient.ts': 'packages/client/authClient.ts',
}

const wrapperOf = new Map(
  Object.entries(seams).map(([wrapper, file]) => [pathToFileURL(file).href, new URL(wrapper, import.meta.url).href]),
)

registerHooks({
  resolve(specifier, context, next) {
    const resolved = next(specifier, context)
    const wrapper = wrapperOf.get(resolved.url)
    // The wrapper's own import must get the real module.
    return wrapper === undefined || wrapper === context.parentURL ? resolved : { ...resolved, url: wrapper }
  },
})
