// The events of GET /events on the wire. Contains types only: the pages of the console import them too.
import type { TokenKind } from '../../../packages/client/contract.ts'

export interface StreamedRate {
  perMinute: number
  burst: number
}

/** Event name -> its data. Instants are epoch milliseconds; `userId` is null for a guest. */
export interface StreamEventData {
  /** The first event of every stream. */
  hello: { at: number; frameMs: number }
  issued: {
    tokenId: string
    userId: string | null
    kind: TokenKind
    purpose: string | null
    expiresAt: number
    scope: string | null
    /** API keys have one, and delegated tokens may. */
    name: string | null
    /** The token that it was delegated from. */
    parentId: string | null
  }
  slid: { tokenId: string; userId: string | null; kind: TokenKind; expiresAt: number }
  /** The token was admitted for the last time. */
  consumed: { tokenId: string; userId: string | null; kind: TokenKind }
  renewed: { tokenId: string; userId: string | null; expiresAt: number }
  expired: { tokenId: string; userId: string | null; expiresAt: number }
  /** The operator changed the scope or the limits of the token, paused or resumed it. */
  changed: {
    tokenId: string
    userId: string | null
    scope: string | null
    paused: boolean
    rate: StreamedRate | null
    usesLeft: number | null
    name: string | null
  }
  revoked: { tokenId: string; userId: string | null }
  /** All tokens of the user ended, except the one with the id `keep`. */
  sessions_revoked: { userId: string; keep: string | null }
  roles_changed: { userId: string; roles: readonly string[] }
  rate_changed: { userId: string; rate: StreamedRate | null }
  user_paused: { userId: string }
  user_resumed: { userId: string }
  /** `tokenId` is null if the secret was malformed. */
  refused: { tokenId: string | null; reason: string }
  /** A canary was presented, and refused like an unknown token; `useCount` includes this use. */
  canary_used: { tokenId: string; userId: string | null; name: string | null; useCount: number }
  login_succeeded: { userId: string | null }
  login_failed: { userId: string | null; reason: string }
  swept: { removed: number; durationMs: number }
  /** How many events were not sent, because there were too many or the client was too slow. */
  dropped: { count: number }
}

/** `count` events with the same name and subject are merged into the last one, which happened at `at`. */
interface Merged {
  at: number
  count: number
}

export type MergedEventName = Exclude<keyof StreamEventData, 'hello' | 'dropped'>

export type StreamEvent = {
  [Name in keyof StreamEventData]: {
    name: Name
    data: Name extends MergedEventName ? StreamEventData[Name] & Merged : StreamEventData[Name]
  }
}[keyof StreamEventData]
