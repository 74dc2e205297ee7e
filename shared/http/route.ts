// One definition per route: path, guard, description and handler. A listener's routes and its OpenAPI document both
// follow from its list of definitions.

import type { Guard, RouteDescription } from './openapi.ts'
import type { Handler, Routes } from './types.ts'

export interface Route<Deps, OwnGuard extends Guard = Guard> extends RouteDescription {
  guard: OwnGuard
  /** Returns null if the settings switch this route off. */
  handler: (deps: Deps) => Handler | null
}

/** `guards` has the middleware of each guard, or null if the guard needs none. */
export function mountRoutes<Deps, OwnGuard extends Guard>(
  routes: readonly Route<Deps, OwnGuard>[],
  deps: Deps,
  guards: Record<OwnGuard, Handler | null>,
): Routes {
  const mounted: Routes = {}
  for (const { path, guard, handler } of routes) {
    const handle = handler(deps)
    const check = guards[guard]
    if (handle !== null) mounted[path] = check === null ? [handle] : [check, handle]
  }
  return mounted
}
