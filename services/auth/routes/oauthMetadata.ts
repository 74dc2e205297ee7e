// GET /.well-known/oauth-authorization-server: what OAuth clients need to know about this server (RFC 8414).
import { z } from 'zod'
import { grantTypes } from './oauthToken.ts'
import type { AuthRoute } from './route.ts'

const url = z.string()
const metadataSchema = z.strictObject({
  issuer: url,
  token_endpoint: url,
  token_endpoint_auth_methods_supported: z.array(z.string()),
  grant_types_supported: z.array(z.string()),
  response_types_supported: z.array(z.string()).meta({ description: 'none: there is no authorization endpoint' }),
  revocation_endpoint: url,
  revocation_endpoint_auth_methods_supported: z.array(z.string()),
  jwks_uri: url.optional(),
})

export const oauthMetadata: AuthRoute<'config' | 'jwt'> = {
  path: 'GET /.well-known/oauth-authorization-server',
  guard: 'none',
  summary: 'RFC 8414: the endpoints for OAuth clients, under PUBLIC_URL',
  tag: 'Standards',
  answers: { 200: { description: 'The metadata', body: metadataSchema } },
  handler:
    ({ config: { publicUrl }, jwt }) =>
    ctx => {
      ctx.body = {
        issuer: publicUrl,
        token_endpoint: `${publicUrl}/oauth/token`,
        token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
        grant_types_supported: grantTypes,
        response_types_supported: [],
        revocation_endpoint: `${publicUrl}/revoke`,
        revocation_endpoint_auth_methods_supported: ['none'],
        ...(jwt && { jwks_uri: `${publicUrl}/.well-known/jwks.json` }),
      }
    },
}
