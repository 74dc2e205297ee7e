// GET /sessions, DELETE /sessions/:id, DELETE /sessions: a user's own. DELETE /admin/users/:id/sessions: anybody's.
import { AppError } from '../../../shared/http/errors.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import { sessionOf } from '../guards/requireSession.ts'
import { isTokenId } from '../tokens/format.ts'
import type { Tokens } from '../tokens/tokens.ts'
import type { Users } from '../users/users.ts'

export function sessionRoutes(users: Users, tokens: Tokens) {
  const list: Handler = async ctx => {
    const own = sessionOf(ctx)
    const sessions = await tokens.sessionsOf(own.userId)
    ctx.body = {
      sessions: sessions.map(({ id, createdAt, lastUsedAt, expiresAt, absoluteExpiresAt, refreshCount }) => ({
        id,
        createdAt,
        lastUsedAt,
        expiresAt,
        absoluteExpiresAt,
        refreshCount,
        current: id === own.id,
      })),
    }
  }

  const endOne: Handler = async ctx => {
    const { id = '' } = ctx.params
    if (!isTokenId(id) || !(await tokens.revokeById(id, sessionOf(ctx).userId))) {
      throw new AppError('not_found', 'You have no session of this id.')
    }
    ctx.status = 204
  }

  const endMine: Handler = async ctx => {
    const { userId } = sessionOf(ctx)
    if (!(await users.endSessions(userId))) {
      // Users in memory are forgotten with the process; what they hold in a database lives on.
      for (const { id } of await tokens.sessionsOf(userId)) await tokens.revokeById(id)
    }
    ctx.status = 204
  }

  const endAnybodys: Handler = async ctx => {
    if (!(await users.endSessions(String(ctx.params['id'])))) throw new AppError('not_found', 'There is no such user.')
    ctx.status = 204
  }

  return { list, endOne, endMine, endAnybodys }
}
