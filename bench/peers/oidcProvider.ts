// oidc-provider with introspection (RFC 7662) and revocation (RFC 7009) of opaque access tokens. Its store is its default, in
// memory; its documentation wants a database in production, which would make it slower.
import { Provider } from 'oidc-provider'
import { serve } from './serve.ts'

const { CLIENT_ID, CLIENT_SECRET } = process.env
const isOwn = (_ctx: unknown, client: { clientId: string }, token: { clientId: string }) =>
  client.clientId === token.clientId
const provider = new Provider('http://127.0.0.1', {
  clients: [
    {
      client_id: CLIENT_ID,
      client_secret: CLIENT_SECRET,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
  ],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true, allowedPolicy: isOwn },
    revocation: { enabled: true, allowedPolicy: isOwn },
  },
  ttl: { ClientCredentials: 7200 },
})
serve(provider.callback())
