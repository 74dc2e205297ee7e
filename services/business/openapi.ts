// The description of Business's routes. If you replace data.ts, describe here what is served instead.
import { z } from 'zod'
import { describeApi, docsAreOff, healthOperations, type Operations } from '../../shared/http/openapi.ts'

const publicOperations: Operations = {
  'GET /data': {
    summary: 'What the token is for',
    tag: 'Data',
    lock: 'bearer',
    answers: { 200: { description: 'The data', body: z.strictObject({ data: z.string() }) } },
    problems: {
      400: 'Two tokens.',
      401: 'No token, or one that opens nothing: unknown, expired, revoked; which is not told.',
      429: 'The same, from an address that has sent too many such tokens.',
    },
  },
  'GET /health': healthOperations['GET /health'],
  'GET /ready': healthOperations['GET /ready'],
  'GET /openapi.json': { ...healthOperations['GET /openapi.json'], problems: docsAreOff },
}

const internalOperations: Operations = {
  'GET /metrics': healthOperations['GET /metrics'],
  'GET /health': healthOperations['GET /health'],
  'GET /openapi.json': healthOperations['GET /openapi.json'],
}

/** Of the public listener. */
export function describeBusiness() {
  return describeApi(publicOperations, {
    title: 'Latchkey Business',
    description: 'Data for those whose token Auth finds good.',
    server: '.',
  })
}

/** Of the internal listener, which the public never reaches. */
export function describeBusinessInternal() {
  return describeApi(internalOperations, {
    title: 'Latchkey Business, internal listener',
    description: 'Figures and health, without a key.',
    server: '.',
  })
}
