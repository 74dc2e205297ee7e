// What happens to tokens, for logs, metrics and the event stream.
import type { TokenKind, TokenRecord } from '../stores/tokenPort.ts'
import type { RefusalEvent } from './refusals.ts'

/** Emitted after the fact. Carries token ids, never secrets. */
export type TokenEvent =
  | {
      type: 'issued'
      tokenId: string
      userId: string | null
      kind: TokenKind
      purpose: string | null
      expiresAt: number
      scope: string | null
      name: string | null
      /** The id of the token that it was delegated from; null if it was not delegated. */
      parentId: string | null
    }
  /** Emitted for admitted tokens of every kind, even though fixed ones are not extended. */
  | {
      type: 'slid'
      tokenId: string
      userId: string | null
      kind: TokenKind
      expiresAt: number
      /** Whether this was the last use, which ended the token. */
      isConsumed: boolean
    }
  | {
      type: 'renewed' | 'revoked'
      tokenId: string
      userId: string | null
      kind: TokenKind
      expiresAt: number
    }
  /** What the token may do has changed: by an operator, by its user, or because a renewed session was paused. */
  | ({ type: 'changed'; tokenId: string; userId: string | null } & Pick<
      TokenRecord,
      'scope' | 'paused' | 'rate' | 'usesLeft' | 'name'
    >)
  /** Every token of the user was revoked, except the one with the id `keep`; null keeps none. */
  | { type: 'sessions_revoked'; userId: string; keep: string | null }
  /** A client asked about so many tokens of open connections. */
  | { type: 'held'; count: number }
  | RefusalEvent
