// The routes of both listeners of Business, and their OpenAPI documents.

import { describeApi } from '../../shared/http/openapi.ts'
import type { Route } from '../../shared/http/route.ts'
import {
  type DocumentDeps,
  healthRoute,
  metricsRoute,
  openApiDocumentRoute,
  type ReadyDeps,
  readyRoute,
  switchable,
} from '../../shared/http/standardRoutes.ts'
import type { Handler } from '../../shared/http/types.ts'
import { getData } from './data.ts'
import { getLiveData, type LiveDeps } from './live.ts'

/** `bearer` is the guard `requireToken`. */
type BusinessRoute<Deps> = Route<Deps, 'none' | 'bearer'>

export const publicRoutes: readonly BusinessRoute<LiveDeps & ReadyDeps & DocumentDeps>[] = [
  getData,
  getLiveData,
  healthRoute,
  readyRoute,
  switchable(openApiDocumentRoute),
]

export const internalRoutes: readonly Route<DocumentDeps & { metrics: { show: Handler } }, 'none'>[] = [
  metricsRoute,
  healthRoute,
  openApiDocumentRoute,
]

/** The document of the public listener. */
export function describeBusiness() {
  return describeApi(publicRoutes, {
    title: 'Latchkey Business',
    description: 'Data for clients with a valid token.',
    server: '.',
  })
}

/** The document of the internal listener, which the public cannot reach. */
export function describeBusinessInternal() {
  return describeApi(internalRoutes, {
    title: 'Latchkey Business, internal listener',
    description: 'Metrics and health, without a key.',
    server: '.',
  })
}
