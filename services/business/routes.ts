// The routes of both listeners of Business, and their OpenAPI documents.

import type { ShadowRules } from '../../packages/client/shadowRules.ts'
import { describeApi } from '../../shared/http/openapi.ts'
import { problemPage } from '../../shared/http/problemPage.ts'
import type { Route } from '../../shared/http/route.ts'
import {
  type DocumentDeps,
  type HomeDeps,
  healthRoute,
  homeRoute,
  metricsRoute,
  openApiDocumentRoute,
  type ReadyDeps,
  readyRoute,
  switchable,
} from '../../shared/http/standardRoutes.ts'
import type { Handler } from '../../shared/http/types.ts'
import { getAdminData } from './adminData.ts'
import { getData } from './data.ts'
import { examples } from './examples.ts'
import { getLiveData, type LiveDeps } from './live.ts'
import { createOrder } from './orders.ts'
import { ruleFor } from './requireNeeds.ts'
import { getShadowRules } from './shadowRules.ts'

/** `bearer` is the guard `requireToken`. */
type BusinessRoute<Deps> = Route<Deps, 'none' | 'bearer'>

/** Each route is under its operationId. */
export const publicRoutes: Record<string, BusinessRoute<LiveDeps & ReadyDeps & DocumentDeps & HomeDeps>> = {
  home: homeRoute('Latchkey Business'),
  getData,
  getLiveData,
  getAdminData,
  createOrder,
  problemPage,
  health: healthRoute,
  ready: readyRoute,
  openApi: switchable(openApiDocumentRoute),
}

/** The rules of the public routes, which SHADOW_RULES can name. */
export const ruleLabels = Object.values(publicRoutes).flatMap(({ needs }) => (needs ? [ruleFor(needs).label] : []))

type InternalDeps = DocumentDeps & { metrics: { show: Handler }; shadowRules: Pick<ShadowRules, 'list'> }

export const internalRoutes: Record<string, Route<InternalDeps, 'none'>> = {
  metrics: metricsRoute,
  getShadowRules,
  problemPage,
  health: healthRoute,
  openApi: openApiDocumentRoute,
}

/** The document of the public listener. */
export function describeBusiness() {
  return describeApi(publicRoutes, {
    title: 'Latchkey Business',
    description: 'Data for clients with a valid token.',
    server: '.',
    examples,
  })
}

/** The document of the internal listener, which the public cannot reach. */
export function describeBusinessInternal() {
  return describeApi(internalRoutes, {
    title: 'Latchkey Business, internal listener',
    description: 'Metrics, health and what shadow rules have counted, without a key.',
    server: '.',
    examples,
  })
}
