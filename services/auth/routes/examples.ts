// The values that examples in the OpenAPI documents show. A test checks each example against the schema of its body.
import type { Examples } from '../../../shared/http/examples.ts'

const tokenId = 'DemoXk29fLq0aB'
// Secrets are cut, so that nothing that searches for leaked ones finds these.
const token = `lk_${tokenId}…`
const secret = 'lk_key_7mdvl2ddIVX2PM…'
const userId = '5b1c6f0e-3f0f-4df8-9f1e-0a6f3f1c2d11'
const username = 'ann@example.com'
const password = 'four words of my own'
const publicUrl = 'https://auth.example.com'
const createdAt = 1_795_166_400_000
const minute = 60_000

export const examples: Examples = {
  members: {
    token,
    access_token: token,
    secret,
    id: tokenId,
    tokenId,
    jti: tokenId,
    parentId: '7mdvl2ddIVX2PM',
    userId,
    sub: userId,
    username,
    password,
    currentPassword: password,
    // Without a p: Spectral reads \p{C} in the pattern as letters, because it lacks the flag u.
    name: 'nightly run',
    keyName: 'nightly run',
    purpose: null,
    scope: 'orders:read orders:write',
    roles: ['admin'],
    email: null,
    pendingEmail: null,
    attributes: { plan: 'pro', profile: { theme: 'dark' } },
    rate: { perMinute: 100, burst: 20 },
    uses: 3,
    usesLeft: null,
    createdAt,
    lastUsedAt: createdAt + minute,
    expiresAt: createdAt + 16 * minute,
    absoluteExpiresAt: createdAt + 720 * minute,
    startsAt: createdAt,
    confirmedAt: createdAt,
    disabledAt: null,
    deletedAt: null,
    expires_in: 900,
    ttlSeconds: 900,
    iat: createdAt / 1000,
    exp: createdAt / 1000 + 900,
    refreshCount: 1,
    useCount: 1,
    count: 3,
    delegatedCount: 1,
    changed: 2,
    removed: 3,
    sliding: 1,
    fixed: 1,
    'single-use': 0,
    next: null,
    held: null,
    actor: { sub: 'nightly run' },
    act: { sub: 'nightly run' },
    link: `${publicUrl}/account#reset=${token}`,
    iss: publicUrl,
    issuer: publicUrl,
    token_endpoint: `${publicUrl}/oauth/token`,
    token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
    grant_types_supported: ['client_credentials', 'urn:ietf:params:oauth:grant-type:token-exchange'],
    response_types_supported: [],
    revocation_endpoint: `${publicUrl}/revoke`,
    revocation_endpoint_auth_methods_supported: ['none'],
    jwks_uri: `${publicUrl}/.well-known/jwks.json`,
    kid: '2026-11',
    openapi: '3.1.1',
    service: 'Latchkey Auth',
    console: '/console',
  },
  bodies: {
    createKey: { name: 'nightly run', scope: 'orders:read' },
    changeKey: { paused: true },
    delegateToken: { scope: 'orders:read', ttlSeconds: 900, uses: 3 },
    changeAccount: { currentPassword: password, password: 'four other words of mine' },
    oauthToken: {
      grant_type: 'client_credentials',
      client_id: '7mdvl2ddIVX2PM',
      client_secret: secret,
      scope: 'orders:read',
    },
    validateToken: { token },
    issueToken: { kind: 'fixed', ttlSeconds: 900, userId, scope: 'orders:read' },
    changeToken: { scope: 'orders:read' },
    pauseTokensByScope: { paused: true },
    createKeyOfUser: { userId, name: 'nightly run', scope: 'orders:read' },
    changeAnyKey: { paused: true },
    createUser: { username, roles: ['editor'] },
    changeUser: { roles: ['admin'] },
  },
}
