// The examples in the OpenAPI documents, and the saved examples of the Postman collection, against the schemas of the routes.
import { readFileSync } from 'node:fs'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { expect } from 'chai'
import { examples as authExamples } from '../../../services/auth/routes/examples.ts'
import * as auth from '../../../services/auth/routes/index.ts'
import { examples as businessExamples } from '../../../services/business/examples.ts'
import * as business from '../../../services/business/routes.ts'
import type { RouteDescription } from '../../../shared/http/openapi.ts'

interface Media {
  schema: object
  example?: unknown
}

interface Operation {
  operationId: string
  requestBody?: { content: Record<string, Media> }
  responses: Record<string, { content?: Record<string, Media> }>
}

interface Saved {
  name: string
  code: number
  body: string
}

interface Item {
  name: string
  item?: Item[]
  request: { method: string; url: { host: string[]; path: string[] } }
  response: Saved[]
}

interface Listener {
  routes: Record<string, RouteDescription>
  document: Record<string, unknown>
}

/** By the variable that has the address in Postman. */
const listeners: Record<string, Listener> = {
  authUrl: { routes: auth.publicRoutes, document: auth.describeAuth() },
  authInternalUrl: { routes: auth.internalRoutes, document: auth.describeAuthInternal() },
  businessUrl: { routes: business.publicRoutes, document: business.describeBusiness() },
  businessInternalUrl: { routes: business.internalRoutes, document: business.describeBusinessInternal() },
}

function openListener({ document }: Listener) {
  const ajv = new Ajv2020({ strict: false })
  addFormats.default(ajv)
  ajv.addSchema(document, 'document')
  const validators = new Map<object, ValidateFunction>()
  /** What is wrong with `value`; null if nothing is. */
  function whyNot(schema: object, value: unknown): string | null {
    const validate =
      validators.get(schema) ?? ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"document#/')))
    validators.set(schema, validate)
    return validate(value) ? null : ajv.errorsText(validate.errors)
  }
  const paths = Object.entries(document['paths'] as Record<string, Record<string, Operation>>)
  const operations = paths.flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ route: `${method.toUpperCase()} ${path}`, ...operation })),
  )
  return { operations, whyNot }
}

describe('the examples in the OpenAPI documents', () => {
  it('are there for every body in JSON of a request and of a success, and match its schema', () => {
    let checked = 0
    for (const listener of Object.values(listeners)) {
      const { operations, whyNot } = openListener(listener)
      for (const { route, requestBody, responses } of operations) {
        const successes = Object.entries(responses).flatMap(([status, answer]) =>
          Number(status) < 400 ? [answer] : [],
        )
        for (const content of [requestBody?.content, ...successes.map(answer => answer.content)]) {
          const media = content?.['application/json']
          if (media === undefined || Object.keys(media.schema).length === 0) continue
          expect(media, route).to.have.property('example')
          expect(whyNot(media.schema, media.example), `${route}: ${JSON.stringify(media.example)}`).to.equal(null)
          checked++
        }
      }
    }
    expect(checked).to.be.above(80)
  })

  it('are accepted by the routes that read them', () => {
    for (const listener of Object.values(listeners)) {
      const { operations } = openListener(listener)
      for (const { operationId, requestBody } of operations) {
        const example = requestBody?.content['application/json']?.example
        const schema = listener.routes[operationId]?.body?.schema
        if (schema)
          expect(schema.safeParse(example).error?.message, `${operationId}: ${JSON.stringify(example)}`).to.equal(
            undefined,
          )
      }
    }
  })

  it('have no value that nothing uses', () => {
    for (const [{ members, bodies }, ...own] of [
      [authExamples, listeners['authUrl'], listeners['authInternalUrl']],
      [businessExamples, listeners['businessUrl'], listeners['businessInternalUrl']],
    ] as const) {
      const text = JSON.stringify(own)
      for (const name of Object.keys(members)) expect(text, name).to.include(`"${name}":`)
      const names = own.flatMap(listener => Object.keys((listener as Listener).routes))
      expect(names).to.include.members(Object.keys(bodies))
    }
  })
})

describe('the saved examples of the Postman collection', () => {
  const { item: folders } = JSON.parse(readFileSync('postman/Latchkey.postman_collection.json', 'utf8')) as {
    item: Item[]
  }

  it('match the schemas of the routes', () => {
    const opened = Object.fromEntries(
      Object.entries(listeners).map(([name, listener]) => [name, openListener(listener)]),
    )
    const wrong: string[] = []
    let checked = 0
    for (const { name, request, response } of folders.flatMap(({ item }) => item ?? [])) {
      const listener = opened[(request.url.host[0] as string).replace(/[{}]/g, '')]
      const path = `/${request.url.path.join('/')}`
      const operation =
        listener?.operations.find(({ route }) => route === `${request.method} ${path}`) ??
        listener?.operations.find(({ route }) => isLike(route, `${request.method} ${path}`))
      for (const { name: saved, code, body } of response) {
        const content = Object.values(operation?.responses[code]?.content ?? {})[0]
        if (!body || content === undefined) continue
        checked++
        const problem = listener?.whyNot(content.schema, JSON.parse(body)) ?? null
        if (problem !== null) wrong.push(`${name}, ${saved}: ${problem}`)
      }
    }
    expect(wrong).to.deep.equal([])
    expect(checked).to.be.above(60)
  })
})

/** Whether `sent` has the shape of `route`, such as `GET /keys/{id}`. */
function isLike(route: string, sent: string): boolean {
  const pattern = route.replace(/\{\w+\}/g, '[^/]+')
  return new RegExp(`^${pattern}$`).test(sent)
}
