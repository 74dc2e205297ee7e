// GET /sessions, DELETE /sessions/:id, DELETE /sessions: a user's own. DELETE /admin/users/:id/sessions: anybody's.
import { AppError } from '../../../shared/errors.ts'
import type { Handler } from '../../../shared/http.ts'
import { isTokenId } from '../tokens/format.ts'
import type { Tokens } from '../tokens/tokens.ts'
import type { Users } from '../users/users.ts'
import { sessionOf } from './requireSession.ts'

export function sessionRoutes(users: Users, tokens: Tokens) {
  /** The user's record first, then the tokens: where the second fails it is 503, and asking again completes it. */
  async function endAll(userId: string): Promise<void> {
    const version = await users.raiseCredentialVersion(userId)
    if (version === null) throw new AppError('not_found', 'There is no such user.')
    await tokens.endUser(userId, version)
  }

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
    await endAll(sessionOf(ctx).userId)
    ctx.status = 204
  }

  const endAnybodys: Handler = async ctx => {
    await endAll(String(ctx.params['id']))
    ctx.status = 204
  }

  return { list, endOne, endMine, endAnybodys }
}
