// The OpenAPI documents of the dialects. The routes of a dialect have no schemas, so this says in examples what they take and answer.
import type { DialectName } from './index.ts'

interface Call {
  summary: string
  /** `key`: ADMIN_KEY. No token by default. */
  needs?: 'token' | 'key'
  /** An example for each member of the body. */
  body?: Record<string, unknown>
  status?: number
  answer: Record<string, unknown>
}

interface Heading {
  title: string
  description: string
}

const heading = (title: string, repository: string): Heading => ({
  title,
  description: `The wire format of [${repository}](https://github.com/${repository}), served by Latchkey.`,
})

const headings: Record<DialectName, Heading> = {
  'token-provider': heading('Token Provider', 'yildirimege/flask-lightweight-token-service'),
  'token-manager': heading('Token Management Service', 'NEFORCEO/token-manager-api'),
  'flask-jwt': heading('JWT Authentication', 'nirbelelti/python-secure-flask-api-jwt-demo'),
  'flask-auth': heading('Flask Auth', 'jerr0328/simple-flask-auth-app'),
}

const uuid = 'f26c57d9-ec8c-42dc-b90d-5891ee72ef6a'
const numbered = '754321:0aB9'
const terms = { ttl_seconds: 30, single_use: false }
const person = { username: 'alice', password: 'a sentence of mine' }
const addressee = { email: 'alice@example.com', password: 'a sentence of mine' }
const status = { status_code: 200, status: true }
const token = 'lk_…'

/** `METHOD /path` -> the call, for every route of the dialect. */
const calls: Record<DialectName, Record<string, Call>> = {
  'token-provider': {
    'POST /generate_token': { summary: 'A new token', body: terms, answer: { token: uuid } },
    'GET /verify_token': { summary: 'Whether the token is valid', needs: 'token', answer: { valid: true } },
    'GET /': { summary: 'Nothing', status: 401, answer: { message: 'Please enter a valid URL.' } },
    'POST /': { summary: 'Nothing', status: 401, answer: { message: 'Please enter a valid URL.' } },
  },
  'token-manager': {
    'POST /app/token': { summary: 'A new token', body: terms, answer: { status_code: 200, token: numbered } },
    'GET /app/valid/:token': { summary: 'Whether the token is valid', answer: status },
    'POST /app/valid/:token': {
      summary: 'Whether the token in the body is valid; the one in the path does not matter',
      body: { token: numbered },
      answer: status,
    },
    'DELETE /app/clear/all/tokens': { summary: 'Removes the expired tokens', answer: status },
  },
  'flask-jwt': {
    'POST /user': {
      summary: 'Registers a user',
      body: person,
      status: 201,
      answer: { message: 'User created successfully' },
    },
    'POST /authenticate_user': { summary: 'Logs in', body: person, answer: { token, access_token: token } },
    'GET /user': {
      summary: 'My account, and a new token instead of the one that was sent',
      needs: 'token',
      answer: { user: { id: 'V1StGXR8_Z5j', username: 'alice' }, token },
    },
    'PUT /user': {
      summary: 'Changes my username, my password or both, within five minutes of the log-in',
      needs: 'token',
      body: person,
      answer: { message: 'User updated successfully', token },
    },
    'DELETE /user': {
      summary: 'Deletes my account, within five minutes of the log-in',
      needs: 'token',
      answer: { message: 'User deleted successfully' },
    },
    'POST /validate_token': {
      summary: 'Whether the token is valid, and a new one instead of it',
      needs: 'token',
      answer: { message: 'Token is valid', token },
    },
    'POST /logout': { summary: 'Ends the session', needs: 'token', answer: { message: 'Logged out successfully' } },
  },
  'flask-auth': {
    'GET /': { summary: 'A greeting', answer: { hello: 'World!' } },
    'POST /registration': {
      summary: 'Registers a user',
      body: addressee,
      answer: { message: 'User alice@example.com was created, please verify your email' },
    },
    'GET /confirm/:token': {
      summary: 'Confirms the address, once',
      answer: { message: 'Email successfully confirmed! You can now login.' },
    },
    'POST /login': {
      summary: 'Logs in',
      body: addressee,
      answer: { message: 'Logged in as alice@example.com', access_token: token, refresh_token: token },
    },
    'GET /secret': { summary: 'What an access token protects', needs: 'token', answer: { answer: 42 } },
    'POST /token/refresh': {
      summary: 'A new access token for the refresh token',
      needs: 'token',
      answer: { access_token: token },
    },
    'POST /logout/access': {
      summary: 'Ends the log-in, by its access token',
      needs: 'token',
      answer: { message: 'Access token has been revoked' },
    },
    'POST /logout/refresh': {
      summary: 'Ends the log-in, by its refresh token',
      needs: 'token',
      answer: { message: 'Refresh token has been revoked' },
    },
    'GET /users': {
      summary: 'Every user',
      needs: 'key',
      answer: { users: [{ email: 'alice@example.com', active: true }] },
    },
    'DELETE /users': { summary: 'Deletes every user', needs: 'key', answer: { message: '1 row(s) deleted' } },
  },
}

/** `routes` are those of the dialect; `server` is its URL relative to the document's. */
export function describeDialect(
  name: DialectName,
  routes: readonly string[],
  { title, description, server }: Partial<Heading> & { server: string },
) {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const route of routes) {
    const [method = '', path = ''] = route.split(' ')
    const call = calls[name][route]
    if (call === undefined) throw new Error(`${name} has no description of ${route}`)
    const template = path.replace(/:(\w+)/g, '{$1}')
    paths[template] = { ...paths[template], [method.toLowerCase()]: operation(path, call) }
  }
  const { title: usualTitle, description: usualDescription } = headings[name]
  return {
    openapi: '3.1.1',
    info: { title: title ?? usualTitle, description: description ?? usualDescription, version: '1' },
    servers: [{ url: server }],
    paths,
    components: { securitySchemes: { token: bearer('A token of this service'), key: bearer('ADMIN_KEY') } },
  }
}

function bearer(description: string) {
  return { type: 'http', scheme: 'bearer', description }
}

function operation(path: string, { summary, needs, body, status = 200, answer }: Call) {
  const json = (example: unknown) => ({ 'application/json': { schema: { type: 'object' }, example } })
  const parameters = [...path.matchAll(/:(\w+)/g)].map(([, name]) => {
    return { name, in: 'path', required: true, schema: { type: 'string' } }
  })
  return {
    summary,
    ...(needs && { security: [{ [needs]: [] }] }),
    ...(parameters.length > 0 && { parameters }),
    ...(body && { requestBody: { content: json(body) } }),
    responses: { [status]: { description: 'The answer of the older service', content: json(answer) } },
  }
}
