// One definition per route: path, guard, description and handler. A listener's routes and its OpenAPI document both
// follow from its record of definitions.

import type { Guard, Needs, RouteDescription } from './openapi.ts'
import type { Handler, Routes } from './types.ts'

export interface Route<Deps, OwnGuard extends Guard = Guard> extends RouteDescription {
  guard: OwnGuard
  /** Returns null if the settings switch this route off. */
  handler: (deps: Deps) => Handler | null
}

/**
 * `guards` has the middleware of each guard, or null if the guard needs none. `requireNeeds` makes the middleware behind it that checks
 * what a route needs besides.
 */
export function mountRoutes<Deps, OwnGuard extends Guard>(
  routes: Record<string, Route<Deps, OwnGuard>>,
  deps: Deps,
  guards: Record<OwnGuard, Handler | null>,
  requireNeeds?: (needs: Needs) => Handler,
): Routes {
  const mounted: Routes = {}
  for (const { path, guard, needs, handler } of Object.values(routes)) {
    const handle = handler(deps)
    if (handle === null) continue
    if (needs && !requireNeeds) throw new Error(`${path} has needs that this listener cannot check.`)
    const checks = [guards[guard], needs && requireNeeds ? requireNeeds(needs) : null]
    mounted[path] = [...checks.filter(check => check !== null), handle]
  }
  return mounted
}
