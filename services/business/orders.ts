// What /orders does: an example of a route for tokens with a scope. It stores nothing.
import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { bodyReader } from '../../shared/http/body.ts'
import type { Route } from '../../shared/http/route.ts'
import { getData } from './data.ts'
import { verdictOf } from './requireToken.ts'

const itemExpected = 'expected 1 to 100 characters'
const quantityExpected = 'expected a whole number from 1 to 1000'
const order = {
  item: z.string(itemExpected).min(1, itemExpected).max(100, itemExpected),
  quantity: z.int(quantityExpected).min(1, quantityExpected).max(1000, quantityExpected),
}
const readOrder = bodyReader(z.strictObject(order))

export const createOrder: Route<unknown, 'bearer'> = {
  path: 'POST /orders',
  guard: 'bearer',
  needs: { scope: 'orders:write' },
  summary: 'Orders something, in the name of the user of the token',
  tag: 'Data',
  body: readOrder,
  answers: {
    201: {
      description: 'The order',
      body: z.strictObject({ id: z.string(), ...order, orderedBy: z.string().nullable() }),
    },
  },
  problems: { ...getData.problems, 400: 'Two tokens were sent, or the body is not as expected; `detail` says which.' },
  handler: () => async ctx => {
    const { item, quantity } = await readOrder(ctx)
    ctx.status = 201
    ctx.body = { id: randomUUID(), item, quantity, orderedBy: verdictOf(ctx).username }
  },
}
