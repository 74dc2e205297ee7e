// Issue, validate and revoke tokens. Hides their format, that only hashes are stored, and how time to live is reckoned.
import { orUnavailable } from '../../../shared/errors.ts'
import type { TokenRecord, TokenRef, TokenStore } from '../stores/ports.ts'
import { drawSecret, drawTokenId, parseSecret, refOf, tagOf } from './format.ts'

export type { TokenRecord }

/** Told after the fact; carries token ids, never secrets. */
export type TokenEvent =
  | { type: 'issued' | 'slid' | 'revoked'; tokenId: string; userId: string | null; expiresAt: number }
  | { type: 'refused'; reason: 'malformed' | 'unknown or dead' }

export interface TokenOwner {
  id: string
  username: string
  credentialVersion: number
}

export interface IssuedToken {
  /** Shown once, to whom it was issued; nobody can find it again. */
  secret: string
  expiresAt: number
  absoluteExpiresAt: number
}

export interface TokensOptions {
  store: TokenStore
  /** Epoch milliseconds. */
  now: () => number
  /** Idle time. */
  ttlMs: number
  absoluteTtlMs: number
  observe: (event: TokenEvent) => void
}

export type Tokens = ReturnType<typeof createTokens>

export function createTokens({ store, now, ttlMs, absoluteTtlMs, observe }: TokensOptions) {
  return {
    /** Null where the owner's credentials changed since they were verified: the log in that proved them came too late. */
    async issue(owner: TokenOwner): Promise<IssuedToken | null> {
      const tag = tagOf(owner.id)
      const secret = drawSecret(tag)
      const createdAt = now()
      const absoluteExpiresAt = createdAt + absoluteTtlMs
      const expiresAt = Math.min(createdAt + ttlMs, absoluteExpiresAt)
      const id = drawTokenId(tag)
      const inserted = await ask(
        store.insert(refOf(secret), {
          id,
          kind: 'sliding',
          userId: owner.id,
          username: owner.username,
          credentialVersion: owner.credentialVersion,
          createdAt,
          expiresAt,
          absoluteExpiresAt,
          ttlMs,
          refreshCount: 0,
        }),
      )
      if (!inserted) return null
      observe({ type: 'issued', tokenId: id, userId: owner.id, expiresAt })
      return { secret, expiresAt, absoluteExpiresAt }
    },

    /**
     * The live tokens among `secrets`, each extended by this; null for every other, whatever the reason. In order.
     * Rejects with `unavailable` where the store could not be asked.
     */
    async validate(secrets: string[]): Promise<(TokenRecord | null)[]> {
      const refs = secrets.map(parseSecret)
      const wellFormed = refs.filter(ref => ref !== null)
      const touched = wellFormed.length > 0 ? await ask(store.touch(wellFormed, now())) : []
      let next = 0
      return refs.map(ref => {
        const token = ref && (touched[next++] ?? null)
        if (token) observe({ type: 'slid', tokenId: token.id, userId: token.userId, expiresAt: token.expiresAt })
        else observe({ type: 'refused', reason: ref ? 'unknown or dead' : 'malformed' })
        return token
      })
    },

    /**
     * Ends the token, if there is one; holds once resolved. Rejects with `unavailable` where the store could not be
     * asked: then it must be taken for live.
     */
    async revoke(secret: string): Promise<void> {
      const ref: TokenRef | null = parseSecret(secret)
      const token = ref && (await ask(store.delete(ref)))
      if (token) observe({ type: 'revoked', tokenId: token.id, userId: token.userId, expiresAt: token.expiresAt })
    },
  }
}

function ask<T>(answer: Promise<T>): Promise<T> {
  return orUnavailable(answer, 'The token store could not be asked.')
}
