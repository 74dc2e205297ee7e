// A listener's OpenAPI 3.1 document, made from its routes and from the schemas that check requests and, in the tests,
// responses.
import { z } from 'zod'
import type { BodyReader } from './body.ts'
import { type ErrorCode, statusOf } from './errors.ts'
import { type Examples, exampleOf } from './examples.ts'
import { typeOf } from './problemTypes.ts'
import type { Handler } from './types.ts'

/**
 * Who may call a route. `bearer`: the holder of a token, which the handler reads itself; `session`: a user with a live
 * session; `client`: the service key, as a bearer token or in HTTP Basic.
 */
export type Guard = 'none' | 'bearer' | 'session' | 'serviceKey' | 'client' | 'adminKey'

/** What a route needs besides a live token: a role of its user, or a scope of the token. */
export type Needs = { role: string } | { scope: string }

/** What the document says about a route. */
export interface RouteDescription {
  /** `METHOD /path`, as in `Routes`. */
  path: string
  guard: Guard
  needs?: Needs
  summary: string
  /** A name in `tagDescriptions`; the document groups the routes by it. */
  tag: Tag
  body?: BodyReader<unknown>
  query?: z.ZodObject
  /** Status below 400 -> its meaning and, if the response has a body, the body's schema or content types. */
  answers: Record<number, { description: string; body?: z.ZodType; types?: readonly string[] }>
  /** Status of 400 and above -> when it is sent. The body is a problem document. */
  problems?: Record<number, string>
  /** The body in JSON that statuses 400 to 415 have instead of a problem document. */
  refusal?: z.ZodType
}

const tagDescriptions = {
  Sessions: 'Log in, renew and revoke sessions',
  Keys: 'API keys, and weaker tokens for agents and jobs',
  Account: 'Register, and manage your account',
  Standards: 'Routes that an RFC defines',
  'For services': 'Whether a token is valid; with the service key',
  'For the operator': 'Tokens, users and events, with the admin key',
  Data: 'What tokens protect',
  Documents: 'Pages, and the files that they load',
  Health: 'For load balancers, probes and Prometheus',
}
type Tag = keyof typeof tagDescriptions

export interface ApiInfo {
  title: string
  description: string
  /** The listener's URL relative to the document's: `.` for a document at the root, `..` for one a level below. */
  server: string
  examples: Examples
}

const codes = Object.keys(statusOf) as ErrorCode[]

/** The body of every error: RFC 9457, with `error` and `requestId`. */
const problemSchema = z
  .strictObject({
    type: z.enum(codes.map(typeOf)).meta({ description: 'relative to this server; leads to a page about the error' }),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    error: z.enum(codes),
    requestId: z.string(),
  })
  .meta({ id: 'Problem', description: 'RFC 9457; `error` is the code to switch on, `detail` is for people' })

const securitySchemes = {
  bearer: { type: 'http', scheme: 'bearer', description: 'A session: the token of a log-in' },
  tokenHeader: { type: 'apiKey', in: 'header', name: 'token', description: 'The same token in a header of its own' },
  serviceKey: { type: 'http', scheme: 'bearer', description: 'SERVICE_KEY, or ADMIN_KEY, which opens everything' },
  clientBasic: {
    type: 'http',
    scheme: 'basic',
    description: 'Any client id, and SERVICE_KEY as the password (RFC 6749, section 2.3.1)',
  },
  adminKey: { type: 'http', scheme: 'bearer', description: 'ADMIN_KEY' },
}

const bearer = [{ bearer: [] }, { tokenHeader: [] }]
const security: Record<Guard, Record<string, string[]>[]> = {
  none: [],
  bearer,
  session: bearer,
  serviceKey: [{ serviceKey: [] }],
  client: [{ serviceKey: [] }, { clientBasic: [] }],
  adminKey: [{ adminKey: [] }],
}

const needsToken = 'Needs the token of a session, once: in `Authorization: Bearer` or in the header `token`.'
const guardDescriptions: Record<Guard, string> = {
  none: 'Needs no token and no key.',
  bearer: needsToken,
  session: needsToken,
  serviceKey: 'Needs `SERVICE_KEY` or `ADMIN_KEY` in `Authorization: Bearer`.',
  client: 'Needs `SERVICE_KEY` or `ADMIN_KEY`, in `Authorization: Bearer` or as the password of HTTP Basic.',
  adminKey: 'Needs `ADMIN_KEY` in `Authorization: Bearer`.',
}

/** Every method that OpenAPI has a name for. */
const anyMethod = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE']

/** The problems of every route that reads a body. */
const bodyProblems = {
  400: 'The body is not as expected; `detail` says what is expected.',
  413: 'The body is too large.',
  415: 'This route does not accept this content type, charset or encoding.',
}

/** The problems of every route. */
const commonProblems = {
  400: 'The request is malformed; `detail` says what is expected.',
  500: 'An internal error; the log has it under the `requestId`.',
  503: 'The service is closing or too busy, or a dependency does not answer. `Retry-After` says when to try again.',
}

/** The document of one listener. `routes` has them by their operationId. */
export function describeApi(
  routes: Record<string, RouteDescription>,
  { title, description, server, examples }: ApiInfo,
): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {}
  const schemas: Record<string, object> = {}
  for (const [name, route] of Object.entries(routes)) {
    const [method, path] = route.path.split(' ') as [string, string]
    const template = path.replace(/\{\*(\w+)\}|:(\w+)/g, '{$1$2}')
    const known = paths[template] ?? {}
    paths[template] = known
    const described = describeRoute(route, template, schemas, examples.members, examples.bodies[name])
    if (method === 'ANY') {
      // An id names one operation, so each method has its own: `forwardAuthGet`.
      for (const one of anyMethod) known[one.toLowerCase()] = { operationId: name + capitalized(one), ...described }
    } else {
      known[method.toLowerCase()] = { operationId: name, ...described }
    }
  }
  const described = Object.values(routes)
  const schemes = new Set(described.flatMap(({ guard }) => security[guard].flatMap(Object.keys)))
  const tags = new Set(described.map(({ tag }) => tag))
  return {
    openapi: '3.1.1',
    info: {
      title,
      description,
      version: '1',
      contact: { name: 'The operator of this installation' },
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: server, description: 'where this document comes from' }],
    tags: [...tags].map(name => ({ name, description: tagDescriptions[name] })),
    paths,
    components: {
      schemas,
      securitySchemes: Object.fromEntries(Object.entries(securitySchemes).filter(([name]) => schemes.has(name))),
    },
  }
}

/** `GET` -> `Get`. */
function capitalized(method: string): string {
  return method.charAt(0) + method.slice(1).toLowerCase()
}

/** `GET /openapi.json`. The document is composed for the first request, not at the start; all requests share its bytes. */
export function openApiRoute(describe: () => Record<string, unknown>): Handler {
  let bytes: Buffer | null = null
  return function openApi(ctx) {
    bytes ??= Buffer.from(JSON.stringify(describe()))
    ctx.type = 'application/json'
    ctx.body = bytes
  }
}

/** Adds the schemas that have a name to `schemas`. `request` is an example of the body, if `members` cannot make one. */
function describeRoute(
  route: RouteDescription,
  template: string,
  schemas: Record<string, object>,
  members: Examples['members'],
  request: unknown,
) {
  const { summary, tag, guard, needs, body, query, answers, problems, refusal } = route
  const inputOf = (schema: z.ZodType) => schemaOf(schema, 'input', schemas)
  const outputOf = (schema: z.ZodType) => schemaOf(schema, 'output', schemas)
  const parameters = [
    ...[...template.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
      name,
      in: 'path',
      required: true,
      schema: { type: 'string' },
    })),
    ...Object.entries(query?.shape ?? {}).map(([name, schema]) => ({
      name,
      in: 'query',
      required: false,
      schema: inputOf(schema as z.ZodType),
    })),
  ]
  const withExample = (schema: object, example: unknown = exampleOf(schema, members, schemas)) => ({ schema, example })
  const content = (schema: object) => {
    const media = withExample(schema, request)
    return { 'application/json': media, ...(body?.takesForms && { 'application/x-www-form-urlencoded': media }) }
  }
  const refusals = {
    ...commonProblems,
    ...(query && { 400: 'The query is not as expected.' }),
    ...(body && bodyProblems),
    ...(needs && { 403: 'The token is live, but lacks what this route needs; `detail` says what.' }),
    ...problems,
  }
  return {
    summary,
    description: `${guardDescriptions[guard]}${needs ? ` ${needsText(needs)}` : ''}`,
    tags: [tag],
    // OpenAPI 3.1 lists what is needed beside a scheme, whatever its type.
    security: needs
      ? security[guard].map(schemes =>
          Object.fromEntries(Object.keys(schemes).map(name => [name, Object.values(needs)])),
        )
      : security[guard],
    ...(parameters.length > 0 && { parameters }),
    ...(body && { requestBody: { required: true, content: content(inputOf(body.schema)) } }),
    responses: {
      ...Object.fromEntries(
        Object.entries(answers).map(([status, { description, body, types }]) => [
          status,
          {
            description,
            ...(body && { content: { 'application/json': withExample(outputOf(body)) } }),
            ...(types && {
              content: Object.fromEntries(
                types.map(type => [type, { schema: type === 'application/json' ? {} : { type: 'string' } }]),
              ),
            }),
          },
        ]),
      ),
      ...Object.fromEntries(
        Object.entries(refusals).map(([status, description]) => [
          status,
          {
            description,
            content:
              refusal && Number(status) <= 415
                ? { 'application/json': { schema: outputOf(refusal) } }
                : { 'application/problem+json': { schema: outputOf(problemSchema) } },
          },
        ]),
      ),
    },
  }
}

function needsText(needs: Needs): string {
  if ('role' in needs) return `The user needs the role \`${needs.role}\`.`
  return `A token with a scope needs \`${needs.scope}\` in it; a session has no scope, and needs none.`
}

/** Schemas whose `meta` has an `id` go into `schemas` under that name and become references. */
function schemaOf(schema: z.ZodType, io: 'input' | 'output', schemas: Record<string, object>): object {
  const made = z.toJSONSchema(schema, {
    target: 'draft-2020-12',
    io,
    unrepresentable: 'any',
    override({ jsonSchema }) {
      // Zod adds these bounds to every integer.
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum
    },
  })
  const { $schema, $defs, id, ...rest } = JSON.parse(
    JSON.stringify(made).replaceAll('"#/$defs/', '"#/components/schemas/'),
  ) as Record<string, unknown>
  for (const [name, { id: _id, ...definition }] of Object.entries(($defs ?? {}) as Record<string, { id?: unknown }>)) {
    schemas[name] = definition
  }
  if (typeof id !== 'string') return rest
  schemas[id] = rest
  return { $ref: `#/components/schemas/${id}` }
}
