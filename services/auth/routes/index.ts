// The routes of the listeners of Auth, and the OpenAPI documents of the public and the internal one.
import { describeApi } from '../../../shared/http/openapi.ts'
import { problemPage } from '../../../shared/http/problemPage.ts'
import type { Route } from '../../../shared/http/route.ts'
import {
  healthRoute,
  homeRoute,
  metricsRoute,
  openApiDocumentRoute,
  readyRoute,
  switchable,
} from '../../../shared/http/standardRoutes.ts'
import { accountPage } from '../pages/account.ts'
import { consoleFile, consolePage, operatorConsolePage } from '../pages/console.ts'
import { type DocsDeps, docsFile, redocPage, swaggerUiPage } from '../pages/docs.ts'
import { changeUser, createUser, deleteUser, listUsers, resetUser, showUser, unlockUser } from './adminUsers.ts'
import { delegateToken } from './delegate.ts'
import { events } from './events.ts'
import { examples } from './examples.ts'
import { forwardAuth, forwardAuthForEnvoy } from './forwardAuth.ts'
import { introspect } from './introspect.ts'
import { jwks } from './jwks.ts'
import { changeKey, createKey, deleteKey, listKeys } from './keys.ts'
import { showUsage, showUsageOfAnyKey } from './keyUsage.ts'
import { confirm, confirmEmail, forgotPassword, resendConfirmation, resetPassword } from './links.ts'
import { login } from './login.ts'
import { logout } from './logout.ts'
import { oauthMetadata } from './oauthMetadata.ts'
import { oauthToken } from './oauthToken.ts'
import { changeAnyKey, createKeyOfUser, deleteAnyKey, listAllKeys } from './operatorKeys.ts'
import { renew } from './renew.ts'
import { revoke } from './revoke.ts'
import type { AuthRoute } from './route.ts'
import { listSessions, revokeOwnSessions, revokeSession, revokeSessionsOfUser } from './sessions.ts'
import { changeToken, issueToken, listTokens, revokeToken, sweepTokens } from './tokens.ts'
import { pauseTokensByScope } from './tokensByScope.ts'
import { changeAccount, deleteAccount, register, showAccount } from './users.ts'
import { validateToken } from './validateToken.ts'

/** Each route is under its operationId. */
export const publicRoutes: Record<string, AuthRoute> = {
  home: homeRoute('Latchkey Auth'),
  login,
  logout,
  renew,
  revoke,
  listSessions,
  revokeSession,
  revokeOwnSessions,
  createKey,
  listKeys,
  changeKey,
  deleteKey,
  showUsage,
  delegateToken,
  register,
  showAccount,
  changeAccount,
  deleteAccount,
  confirm,
  confirmEmail,
  resendConfirmation,
  forgotPassword,
  resetPassword,
  accountPage,
  oauthToken,
  oauthMetadata,
  jwks,
  openApi: switchable(openApiDocumentRoute),
  swaggerUiPage: switchable(swaggerUiPage),
  redocPage: switchable(redocPage),
  consolePage,
  consoleFile,
  docsFile,
  problemPage,
  health: healthRoute,
  ready: readyRoute,
}

/** Each route is under its operationId. */
export const internalRoutes: Record<string, AuthRoute> = {
  home: homeRoute('Latchkey Auth, internal listener'),
  validateToken,
  introspect,
  forwardAuth,
  forwardAuthForEnvoy,
  listTokens,
  issueToken,
  sweepTokens, // before revokeToken, whose pattern matches this path too
  revokeToken,
  changeToken,
  pauseTokensByScope,
  listAllKeys,
  createKeyOfUser,
  changeAnyKey,
  deleteAnyKey,
  showUsageOfAnyKey,
  listUsers,
  createUser,
  showUser,
  changeUser,
  unlockUser,
  resetUser,
  deleteUser,
  revokeSessionsOfUser,
  events,
  operatorConsolePage,
  openApi: openApiDocumentRoute,
  swaggerUiPage,
  consoleFile,
  docsFile,
  metrics: metricsRoute,
  problemPage,
  health: healthRoute,
  ready: readyRoute,
}

/** What the listener of a dialect has beside the dialect. Errors such as 404 are problem documents there too. */
export const dialectRoutes: Record<string, Route<DocsDeps, 'none'>> = {
  swaggerUiPage,
  redocPage,
  docsFile,
  problemPage,
  health: healthRoute,
}

/** The document of the public listener. For `server` see `ApiInfo`. */
export function describeAuth(server = '.') {
  return describeApi(publicRoutes, {
    title: 'Latchkey Auth',
    description: 'Users and their tokens, which are extended by use and can be revoked at once.',
    server,
    examples,
  })
}

/** The document of the internal listener, which the public cannot reach. */
export function describeAuthInternal(server = '.') {
  return describeApi(internalRoutes, {
    title: 'Latchkey Auth, internal listener',
    description: 'For services, with SERVICE_KEY, and for operators, with ADMIN_KEY.',
    server,
    examples,
  })
}
