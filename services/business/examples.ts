// The values that examples in the OpenAPI documents show. A test checks each example against the schema of its body.
import type { Examples } from '../../shared/http/examples.ts'

const userId = '5b1c6f0e-3f0f-4df8-9f1e-0a6f3f1c2d11'

export const examples: Examples = {
  members: {
    data: 'Hello, ann@example.com!',
    roles: ['admin'],
    id: '3f0c5a52-6c1e-4f6f-9d2b-6f0f2f1f7a10',
    item: 'a book',
    quantity: 2,
    orderedBy: 'ann@example.com',
    rule: 'requireRole(admin)',
    countedMs: 3_600_000,
    met: 42,
    unmet: 1,
    last: { requestId: '9a2e4c1c-6f0d-4a53-8d7f-2d1f3f6a0b11', tokenId: 'DemoXk29fLq0aB', userId, agoMs: 60_000 },
    openapi: '3.1.1',
    service: 'Latchkey Business',
    console: 'https://auth.example.com/console',
  },
  bodies: {},
}
