// The OpenAPI documents of Auth's two listeners: each route's request schema, its responses and its description.
import { z } from 'zod'
import { tokenKinds } from '../../packages/client/contract.ts'
import { describeApi, docsAreOff, healthOperations, type Operations } from '../../shared/http/openapi.ts'
import { newUserSchema, userChangeSchema, userQuerySchema } from './routes/adminUsers.ts'
import { credentialsSchema } from './routes/credentials.ts'
import { introspectionSchema, introspectSchema } from './routes/introspect.ts'
import { linkSchema, resetSchema, usernameSchema } from './routes/links.ts'
import { revokeSchema } from './routes/revoke.ts'
import { termsSchema, tokenQuerySchema } from './routes/tokens.ts'
import { changeSchema, proofSchema } from './routes/users.ts'
import { validateTokenSchema } from './routes/validateToken.ts'

const at = z.int().meta({ description: 'epoch milliseconds' })
const tokenId = z.string().meta({ description: 'public name of a token' })
const kind = z.enum(tokenKinds)

const session = z.strictObject({
  token: z.string().meta({ description: 'the secret; shown this once' }),
  tokenType: z.literal('Bearer'),
  expiresAt: at,
  absoluteExpiresAt: at,
})
const newSession = session.meta({ id: 'NewSession' })

const sessions = z.strictObject({
  sessions: z.array(
    z
      .strictObject({
        id: tokenId,
        createdAt: at,
        lastUsedAt: at,
        expiresAt: at,
        absoluteExpiresAt: at,
        refreshCount: z.int(),
        current: z.boolean(),
      })
      .meta({ id: 'Session' }),
  ),
})

const userFields = z.strictObject({ id: z.string(), username: z.string(), createdAt: at })
const user = userFields.meta({ id: 'User' })

const adminUser = userFields
  .extend({ confirmedAt: at.nullable(), disabledAt: at.nullable(), deletedAt: at.nullable() })
  .meta({ id: 'UserRecord' })

const userPage = z.strictObject({
  users: z.array(adminUser),
  next: z.string().nullable(),
})

const accepted = z.strictObject({ status: z.literal('accepted') }).meta({ id: 'Accepted' })

const verdict = z
  .union([
    z.strictObject({ authenticated: z.literal(false) }),
    z.strictObject({
      authenticated: z.literal(true),
      tokenId,
      kind,
      username: z.string().nullable(),
      userId: z.string().nullable(),
      createdAt: at,
      expiresAt: at,
      absoluteExpiresAt: at,
      refreshCount: z.int(),
    }),
  ])
  .meta({ id: 'Verdict' })

const issuedToken = session
  .extend({
    tokenId,
    kind,
    purpose: z.string().nullable(),
    userId: z.string().nullable(),
    username: z.string().nullable(),
    createdAt: at,
  })
  .meta({ id: 'IssuedToken' })

const tokenPage = z.strictObject({
  counts: z.strictObject({ sliding: z.int(), fixed: z.int(), 'single-use': z.int() }),
  tokens: z.array(
    z
      .strictObject({
        id: tokenId,
        kind,
        purpose: z.string().nullable(),
        userId: z.string().nullable(),
        username: z.string().nullable(),
        createdAt: at,
        lastUsedAt: at,
        expiresAt: at,
        absoluteExpiresAt: at,
        refreshCount: z.int(),
      })
      .meta({ id: 'Token' }),
  ),
  next: z.string().nullable(),
})

const noToken = 'No token, or one that opens nothing: unknown, expired, revoked; which is not told.'
const mayPass = 'It may pass; X-Auth-User-Id and X-Auth-User say whose it is, and are "-" for a guest'
const tooManyTokens = 'The same, from an address that has sent too many such tokens.'
const tooManyAttempts =
  'Too many wrong passwords for this account or from this address; the same for accounts that do not exist.'
const tooManyMails = 'Too many mails were asked for, to this account or from this address.'
const noKey = 'Another key than this route takes, or none.'
const noKeyOrUser = { 400: 'Two keys.', 401: noKey, 404: 'There is no such user.' } as const
/** Responses of a route that requires a session. */
const ofSession = { 400: 'Two tokens.', 401: noToken, 429: tooManyTokens }
/** Responses of a route that also requires the password. */
const ofProof = {
  400: 'Two tokens, or a body that is not what is expected; `detail` says what is.',
  401: 'The current password is wrong (`invalid_credentials`), or the token opens nothing (`invalid_token`).',
  409: 'Another request changed it at this moment.',
  429: tooManyAttempts,
}

const notModified = { description: 'The client has this already: its ETag was in If-None-Match' }

const pageOperation = {
  tag: 'Documents',
  lock: 'open',
  answers: { 200: { description: 'A page', types: ['text/html'] }, 304: notModified },
} as const

/** The files that the console and the documentation pages load, on both listeners. */
const assetOperations: Operations = {
  'GET /console/:file': {
    ...pageOperation,
    summary: 'What /console loads',
    answers: {
      200: {
        description: 'A script, a style sheet, its settings',
        types: ['text/javascript', 'text/css', 'image/svg+xml', 'application/json'],
      },
      304: notModified,
    },
    problems: { 404: 'There is no such file.' },
  },
  'GET /docs/:file': {
    ...pageOperation,
    summary: 'What the pages of this description load',
    answers: {
      200: {
        description: 'A script, a style sheet, this description',
        types: ['text/javascript', 'text/css', 'application/json'],
      },
      304: notModified,
    },
    problems: { 404: 'There is no such file.' },
  },
}

const publicOperations: Operations = {
  'POST /login': {
    summary: 'A username and its password for a session',
    tag: 'Sessions',
    lock: 'open',
    body: credentialsSchema,
    form: true,
    answers: { 200: { description: 'A session', body: newSession } },
    problems: { 401: 'The username or the password is wrong; which is not told.', 429: tooManyAttempts },
  },
  'POST /logout': {
    summary: 'Ends the session it is called with',
    tag: 'Sessions',
    lock: 'bearer',
    answers: { 204: { description: 'It has ended; also where it had before' } },
    problems: { 400: 'Two tokens.', 401: 'No token, or no session.' },
  },
  'POST /renew': {
    summary: 'A new secret for the same session; the old one is dead in the same step',
    tag: 'Sessions',
    lock: 'bearer',
    answers: { 200: { description: 'The same session', body: newSession } },
    problems: ofSession,
  },
  'POST /revoke': {
    summary: 'RFC 7009: whoever holds a token may end it',
    tag: 'Standards',
    lock: 'open',
    body: revokeSchema,
    form: true,
    answers: { 200: { description: 'It has ended, or was never there', body: z.strictObject({}) } },
  },
  'GET /sessions': {
    summary: 'My sessions, the oldest first',
    tag: 'Sessions',
    lock: 'bearer',
    answers: { 200: { description: 'Without secrets', body: sessions } },
    problems: ofSession,
  },
  'DELETE /sessions/:id': {
    summary: 'Ends one of my sessions',
    tag: 'Sessions',
    lock: 'bearer',
    answers: { 204: { description: 'It has ended' } },
    problems: { ...ofSession, 404: 'I have no session of this id.' },
  },
  'DELETE /sessions': {
    summary: 'Ends all of my sessions, this one and my other tokens too',
    tag: 'Sessions',
    lock: 'bearer',
    answers: { 204: { description: 'They have ended' } },
    problems: { ...ofSession, 404: 'There is no such user any more.' },
  },
  'POST /users': {
    summary: 'Registers a user',
    tag: 'Account',
    lock: 'open',
    body: credentialsSchema,
    answers: {
      201: { description: 'The user', body: user },
      202: { description: 'With EMAIL_CONFIRMATION=required, whether there is an account or not', body: accepted },
    },
    problems: {
      403: 'Registration is closed.',
      409: 'The username is taken.',
      429: 'Too many users from this address, or mails to this one.',
    },
  },
  'GET /users/me': {
    summary: 'Who I am',
    tag: 'Account',
    lock: 'bearer',
    answers: { 200: { description: 'The user', body: user } },
    problems: { ...ofSession, 404: 'There is no such user any more.' },
  },
  'PATCH /users/me': {
    summary: 'Changes my password and ends my other sessions',
    tag: 'Account',
    lock: 'bearer',
    body: changeSchema,
    answers: { 200: { description: 'The user', body: user } },
    problems: ofProof,
  },
  'DELETE /users/me': {
    summary: 'Deletes my account and ends my sessions',
    tag: 'Account',
    lock: 'bearer',
    body: proofSchema,
    answers: { 204: { description: 'It is gone' } },
    problems: ofProof,
  },
  'POST /users/confirm': {
    summary: 'Confirms an address by the token of a mail',
    tag: 'Account',
    lock: 'open',
    body: linkSchema,
    answers: { 204: { description: 'The user may log in' } },
    problems: { 401: 'Unknown, used, too old, or replaced by a newer one.', 429: tooManyTokens },
  },
  'POST /users/confirm/resend': {
    summary: 'Sends the link of the confirmation again',
    tag: 'Account',
    lock: 'open',
    body: usernameSchema,
    answers: { 202: { description: 'Whether there is such a user or not', body: accepted } },
    problems: { 404: 'There is no e-mail here.', 429: tooManyMails },
  },
  'POST /password/forgot': {
    summary: 'Sends a link to choose a new password',
    tag: 'Account',
    lock: 'open',
    body: usernameSchema,
    answers: { 202: { description: 'Whether there is such a user or not', body: accepted } },
    problems: { 404: 'There is no e-mail here.', 429: tooManyMails },
  },
  'POST /password/reset': {
    summary: 'Sets a new password by the token of a mail and ends every session',
    tag: 'Account',
    lock: 'open',
    body: resetSchema,
    answers: { 204: { description: 'The password is the new one' } },
    problems: { 401: 'Unknown, used, too old, or replaced by a newer one.', 429: tooManyTokens },
  },
  'GET /account': {
    ...pageOperation,
    summary: 'The page that links in mails open',
    tag: 'Account',
  },
  'GET /.well-known/jwks.json': {
    summary: 'The public keys of the tokens (RFC 7517), with TOKEN_FORMAT=jwt',
    tag: 'Standards',
    lock: 'open',
    answers: {
      200: { description: 'A JWK Set', body: z.strictObject({ keys: z.array(z.looseObject({ kid: z.string() })) }) },
    },
    problems: { 404: 'TOKEN_FORMAT is opaque.' },
  },
  'GET /openapi.json': { ...healthOperations['GET /openapi.json'], problems: docsAreOff },
  'GET /docs': { ...pageOperation, summary: 'This description in Swagger UI', problems: docsAreOff },
  'GET /redoc': { ...pageOperation, summary: 'This description in ReDoc', problems: docsAreOff },
  'GET /console': { ...pageOperation, summary: 'Tokens, watched while they live and die' },
  ...assetOperations,
  'GET /health': healthOperations['GET /health'],
  'GET /ready': healthOperations['GET /ready'],
}

const internalOperations: Operations = {
  'POST /validateToken': {
    summary: 'Judges one token, or up to 256 in one call, and extends or consumes those that are good',
    tag: 'For services',
    lock: 'serviceKey',
    body: validateTokenSchema,
    answers: {
      200: {
        description: 'A verdict, or the verdicts in the order of the tokens',
        body: z.union([verdict, z.strictObject({ verdicts: z.array(verdict) })]),
      },
    },
    problems: { 401: noKey },
  },
  'POST /introspect': {
    summary: 'RFC 7662: looks at a token and extends nothing',
    tag: 'For services',
    lock: 'client',
    body: introspectSchema,
    form: true,
    answers: { 200: { description: 'Active, or not', body: introspectionSchema } },
    problems: { 401: noKey },
  },
  'ANY /forwardAuth': {
    summary: 'For proxies: validates the bearer token of the request that is passed on',
    tag: 'For services',
    lock: 'bearer',
    answers: { 204: { description: mayPass } },
    problems: { 401: noToken },
  },
  'ANY /forwardAuth/{*path}': {
    summary: 'The same for Envoy, which appends the path of the request, slashes and all',
    tag: 'For services',
    lock: 'bearer',
    answers: { 200: { description: mayPass, body: z.strictObject({}) } },
    problems: { 401: noToken },
  },
  'GET /tokens': {
    summary: 'How many tokens there are of each kind, and a page of them without secrets',
    tag: 'For the operator',
    lock: 'adminKey',
    query: tokenQuerySchema,
    answers: { 200: { description: 'A page', body: tokenPage } },
    problems: { 401: noKey },
  },
  'POST /tokens': {
    summary: 'Issues a token: password links, one-time codes, API keys, guests',
    tag: 'For the operator',
    lock: 'adminKey',
    body: termsSchema,
    answers: { 201: { description: 'The token; its secret this once', body: issuedToken } },
    problems: { 401: noKey, 409: 'The sessions of this user were ended at this moment.' },
  },
  'DELETE /tokens/:id': {
    summary: 'Ends a token by its public name',
    tag: 'For the operator',
    lock: 'adminKey',
    answers: { 204: { description: 'It has ended' } },
    problems: { 400: 'Two keys.', 401: noKey, 404: 'There is no token of this id.' },
  },
  'DELETE /tokens/expired': {
    summary: 'Sweeps now',
    tag: 'For the operator',
    lock: 'adminKey',
    answers: { 200: { description: 'How many were removed', body: z.strictObject({ removed: z.int() }) } },
    problems: { 400: 'Two keys.', 401: noKey },
  },
  'GET /admin/users': {
    summary:
      'Lists users, without hashes: all, those whose username begins with `search`, or the one named `username` exactly',
    tag: 'For the operator',
    lock: 'adminKey',
    query: userQuerySchema,
    answers: { 200: { description: 'A page', body: userPage } },
    problems: { 401: noKey },
  },
  'POST /admin/users': {
    summary: 'Creates a user, with a password, or with a link by mail to choose one',
    tag: 'For the operator',
    lock: 'adminKey',
    body: newUserSchema,
    answers: { 201: { description: 'The user', body: adminUser } },
    problems: { 401: noKey, 409: 'The username is taken.' },
  },
  'GET /admin/users/:id': {
    summary: 'One user, without the hash',
    tag: 'For the operator',
    lock: 'adminKey',
    answers: { 200: { description: 'The user', body: adminUser } },
    problems: noKeyOrUser,
  },
  'PATCH /admin/users/:id': {
    summary: 'Disables a user, which ends every token, or enables the user again',
    tag: 'For the operator',
    lock: 'adminKey',
    body: userChangeSchema,
    answers: { 200: { description: 'The user', body: adminUser } },
    problems: { 401: noKey, 404: 'There is no such user.' },
  },
  'POST /admin/users/:id/unlock': {
    summary: 'Forgets the wrong passwords that keep a user from logging in at new addresses',
    tag: 'For the operator',
    lock: 'adminKey',
    answers: { 204: { description: 'They are forgotten' } },
    problems: noKeyOrUser,
  },
  'POST /admin/users/:id/reset': {
    summary: 'A link to choose a new password: by mail, or in the answer if no mail can go to this user',
    tag: 'For the operator',
    lock: 'adminKey',
    answers: {
      200: {
        description: 'The link was sent, or is here',
        body: z.union([
          z.strictObject({ sent: z.literal(true) }),
          z.strictObject({ sent: z.literal(false), link: z.string(), expiresAt: at }),
        ]),
      },
    },
    problems: {
      400: 'Two keys.',
      401: noKey,
      404: 'There is no such user.',
      409: 'The user was changed at this moment.',
    },
  },
  'DELETE /admin/users/:id': {
    summary: 'Ends every token of a user, then deletes the user',
    tag: 'For the operator',
    lock: 'adminKey',
    answers: { 204: { description: 'The user is deleted' } },
    problems: noKeyOrUser,
  },
  'DELETE /admin/users/:id/sessions': {
    summary: 'Ends every token of a user',
    tag: 'For the operator',
    lock: 'adminKey',
    answers: { 204: { description: 'They have ended' } },
    problems: noKeyOrUser,
  },
  'GET /events': {
    summary: 'What happens to tokens, as it happens: server-sent events, ten times a second at most, without secrets',
    tag: 'For the operator',
    lock: 'adminKey',
    answers: { 200: { description: 'A stream that ends when Auth does', types: ['text/event-stream'] } },
    problems: { 400: 'Two keys.', 401: noKey },
  },
  'GET /console': { ...pageOperation, summary: "The operator's view" },
  'GET /openapi.json': healthOperations['GET /openapi.json'],
  'GET /docs': { ...pageOperation, summary: 'This description in Swagger UI' },
  ...assetOperations,
  'GET /metrics': healthOperations['GET /metrics'],
  'GET /health': healthOperations['GET /health'],
  'GET /ready': healthOperations['GET /ready'],
}

/** Describes the public listener. For `server` see `ApiInfo`. */
export function describeAuth(server = '.') {
  return describeApi(publicOperations, {
    title: 'Latchkey Auth',
    description: 'Users, and tokens that slide while they are used and can be ended at once.',
    server,
  })
}

/** Describes the internal listener, which the public cannot reach. */
export function describeAuthInternal(server = '.') {
  return describeApi(internalOperations, {
    title: 'Latchkey Auth, internal listener',
    description: 'For services, with SERVICE_KEY, and for operators, with ADMIN_KEY.',
    server,
  })
}
