// GET /sessions, DELETE /sessions/:id, DELETE /sessions: a user's own sessions. DELETE /admin/users/:id/sessions: the
// tokens of any user.
import { z } from 'zod'
import { AppError } from '../../../shared/http/errors.ts'
import { sessionOf } from '../guards/requireSession.ts'
import { isTokenId } from '../tokens/format.ts'
import { noKeyOrUser } from './adminUsers.ts'
import { type AuthRoute, at, sessionProblems, tokenId } from './route.ts'

const sessionList = z.strictObject({
  sessions: z.array(
    z
      .strictObject({
        id: tokenId,
        createdAt: at,
        lastUsedAt: at,
        expiresAt: at,
        absoluteExpiresAt: at,
        refreshCount: z.int(),
        paused: z.boolean(),
        current: z.boolean(),
      })
      .meta({ id: 'Session' }),
  ),
})

export const listSessions: AuthRoute<'tokens'> = {
  path: 'GET /sessions',
  guard: 'session',
  summary: 'Lists my sessions, oldest first',
  tag: 'Sessions',
  answers: { 200: { description: 'The sessions, without secrets', body: sessionList } },
  problems: sessionProblems,
  handler:
    ({ tokens }) =>
    async ctx => {
      const own = sessionOf(ctx)
      const sessions = await tokens.listSessions(own.userId)
      ctx.body = {
        sessions: sessions.map(({ id, createdAt, lastUsedAt, expiresAt, absoluteExpiresAt, refreshCount, paused }) => ({
          id,
          createdAt,
          lastUsedAt,
          expiresAt,
          absoluteExpiresAt,
          refreshCount,
          paused,
          current: id === own.id,
        })),
      }
    },
}

export const revokeSession: AuthRoute<'tokens'> = {
  path: 'DELETE /sessions/:id',
  guard: 'session',
  summary: 'Revokes one of my sessions',
  tag: 'Sessions',
  answers: { 204: { description: 'The session is revoked' } },
  problems: { ...sessionProblems, 404: 'You have no session with this id.' },
  handler:
    ({ tokens }) =>
    async ctx => {
      const { id = '' } = ctx.params
      if (!isTokenId(id) || !(await tokens.revokeById(id, sessionOf(ctx).userId))) {
        throw new AppError('not_found', 'You have no session with this id.')
      }
      ctx.status = 204
    },
}

export const revokeOwnSessions: AuthRoute<'users' | 'tokens'> = {
  path: 'DELETE /sessions',
  guard: 'session',
  summary: 'Revokes all my tokens, including this session',
  tag: 'Sessions',
  answers: { 204: { description: 'The tokens are revoked' } },
  problems: { ...sessionProblems, 404: 'The user has been deleted.' },
  handler:
    ({ users, tokens }) =>
    async ctx => {
      const { userId } = sessionOf(ctx)
      if (!(await users.revokeSessions(userId))) {
        // Users in memory are lost with the process, but their tokens in a database are not.
        for (const { id } of await tokens.listSessions(userId)) await tokens.revokeById(id, null)
      }
      ctx.status = 204
    },
}

export const revokeSessionsOfUser: AuthRoute<'users'> = {
  path: 'DELETE /admin/users/:id/sessions',
  guard: 'adminKey',
  summary: 'Revokes every token of a user',
  tag: 'For the operator',
  answers: { 204: { description: 'The tokens are revoked' } },
  problems: noKeyOrUser,
  handler:
    ({ users }) =>
    async ctx => {
      if (!(await users.revokeSessions(String(ctx.params['id']))))
        throw new AppError('not_found', 'There is no such user.')
      ctx.status = 204
    },
}
