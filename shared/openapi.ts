// A service's OpenAPI 3.1 document, made from the schemas that check its requests and, in the tests, its answers.
import { z } from 'zod'
import { statusOf } from './errors.ts'
import type { Handler } from './http.ts'

/** What opens a route: nothing, a user's session, or a key. `client`: the service key, as a bearer token or in HTTP Basic. */
type Lock = 'open' | 'bearer' | 'serviceKey' | 'client' | 'adminKey'

export interface Operation {
  summary: string
  /** The listener's document groups by it. */
  tag: string
  lock: Lock
  body?: z.ZodType
  /** The body may be a form, too. */
  form?: true
  query?: z.ZodObject
  /** Status below 400 -> what it means and, where there is a body, its schema or the types it may have. */
  answers: Record<number, { description: string; body?: z.ZodType; types?: readonly string[] }>
  /** Status of 400 and above -> when. Its body is a problem document. */
  problems?: Record<number, string>
}

/** `METHOD /path` -> its description; the same names as in the list of routes, `ANY` too. */
export type Operations = Record<string, Operation>

export interface ApiInfo {
  title: string
  description: string
  /** Where the listener is, relative to where its document is read: `.` beside it, `..` one level below. */
  server: string
}

/** Of every error body: RFC 9457, with `error` and `requestId`. */
export const problemSchema = z
  .strictObject({
    type: z.literal('about:blank'),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    error: z.enum(Object.keys(statusOf)),
    requestId: z.string(),
  })
  .meta({ description: 'RFC 9457; `error` is the code to switch on, `detail` is for people' })

/** What every service has. */
export const healthOperations = {
  'GET /health': {
    summary: 'The process answers',
    tag: 'Health',
    lock: 'open',
    answers: { 200: { description: 'It does', body: z.strictObject({ status: z.literal('ok') }) } },
  },
  'GET /ready': {
    summary: 'Requests can be served',
    tag: 'Health',
    lock: 'open',
    answers: { 200: { description: 'They can', body: z.strictObject({ status: z.literal('ready') }) } },
  },
  'GET /metrics': {
    summary: 'The figures for Prometheus',
    tag: 'Health',
    lock: 'open',
    answers: { 200: { description: "Prometheus's text format", types: ['text/plain'] } },
  },
  'GET /openapi.json': {
    summary: 'This description',
    tag: 'Documents',
    lock: 'open',
    answers: { 200: { description: 'OpenAPI 3.1', body: z.looseObject({ openapi: z.string() }) } },
  },
} as const satisfies Operations

/** For the documents of a public listener. */
export const docsAreOff = { 404: 'API_DOCS is off.' }

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

const security: Record<Lock, Record<string, string[]>[]> = {
  open: [],
  bearer: [{ bearer: [] }, { tokenHeader: [] }],
  serviceKey: [{ serviceKey: [] }],
  client: [{ serviceKey: [] }, { clientBasic: [] }],
  adminKey: [{ adminKey: [] }],
}

const problemAnswer = (description: string) => ({
  description,
  content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
})

/** All that OpenAPI has a name for. */
const anyMethod = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE']

/** What any route that reads a body may say of it. */
const bodyProblems = {
  400: 'The body is not what is expected; `detail` says what is.',
  413: 'The body is too large.',
  415: 'Another content type, charset or encoding than this route takes.',
}

/** Of every route: faults of ours. */
const faults = {
  500: 'A fault of ours; the log has it under the `requestId`.',
  503: 'Could not: closing, too busy, or something behind it gives no answer. `Retry-After` says when to try again.',
}

/** The document of one listener. */
export function describeApi(operations: Operations, { title, description, server }: ApiInfo): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const [route, operation] of Object.entries(operations)) {
    const [method, path] = route.split(' ') as [string, string]
    const template = path.replace(/\{\*(\w+)\}|:(\w+)/g, '{$1$2}')
    const known = paths[template] ?? {}
    paths[template] = known
    const described = describeOperation(operation, template)
    for (const name of method === 'ANY' ? anyMethod : [method]) known[name.toLowerCase()] = described
  }
  const locks = new Set(Object.values(operations).flatMap(({ lock }) => security[lock].flatMap(Object.keys)))
  return {
    openapi: '3.1.1',
    info: { title, description, version: '1', license: { name: 'MIT', identifier: 'MIT' } },
    servers: [{ url: server, description: 'where this document comes from' }],
    paths,
    components: {
      schemas: { Problem: schemaOf(problemSchema, 'output') },
      securitySchemes: Object.fromEntries(Object.entries(securitySchemes).filter(([name]) => locks.has(name))),
    },
  }
}

/** `GET /openapi.json`. All requests share the bytes of one answer. */
export function openApiRoute(document: Record<string, unknown>): Handler {
  const bytes = Buffer.from(JSON.stringify(document))
  return function openApi(ctx) {
    ctx.type = 'application/json'
    ctx.body = bytes
  }
}

function describeOperation({ summary, tag, lock, body, form, query, answers, problems }: Operation, template: string) {
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
      schema: schemaOf(schema as z.ZodType, 'input'),
    })),
  ]
  const content = (schema: object) => ({
    'application/json': { schema },
    ...(form && { 'application/x-www-form-urlencoded': { schema } }),
  })
  const refusals = {
    ...(query && { 400: 'The query is not what is expected.' }),
    ...(body && bodyProblems),
    ...faults,
    ...problems,
  }
  return {
    summary,
    tags: [tag],
    security: security[lock],
    ...(parameters.length > 0 && { parameters }),
    ...(body && { requestBody: { required: true, content: content(schemaOf(body, 'input')) } }),
    responses: {
      ...Object.fromEntries(
        Object.entries(answers).map(([status, { description, body, types }]) => [
          status,
          {
            description,
            ...(body && { content: { 'application/json': { schema: schemaOf(body, 'output') } } }),
            ...(types && {
              content: Object.fromEntries(
                types.map(type => [type, { schema: type === 'application/json' ? {} : { type: 'string' } }]),
              ),
            }),
          },
        ]),
      ),
      ...Object.fromEntries(Object.entries(refusals).map(([status, when]) => [status, problemAnswer(when)])),
    },
  }
}

function schemaOf(schema: z.ZodType, io: 'input' | 'output'): object {
  const { $schema, ...rest } = z.toJSONSchema(schema, { target: 'draft-2020-12', io, unrepresentable: 'any' })
  return rest
}
