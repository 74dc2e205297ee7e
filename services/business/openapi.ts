// The description of Business's routes. Who replaces data.ts describes here what is served instead.
import { z } from 'zod'
import { describeApi, healthOperations, type Operations } from '../../shared/openapi.ts'

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
  'GET /openapi.json': healthOperations['GET /openapi.json'],
}

const internalOperations: Operations = {
  'GET /metrics': healthOperations['GET /metrics'],
  'GET /health': healthOperations['GET /health'],
}

/** Of both listeners. `internalUrl`: where the internal one is for those who may reach it. */
export function describeBusiness(internalUrl: string) {
  return describeApi(
    [
      { operations: publicOperations, server: { url: '.', description: 'the public listener of Business' } },
      { operations: internalOperations, server: { url: internalUrl, description: 'its internal listener' } },
    ],
    { title: 'Latchkey Business', description: 'Data for those whose token Auth finds good.' },
  )
}
