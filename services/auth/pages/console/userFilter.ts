// The filter for the tokens of one user. The page has only some of the tokens, so it asks Auth whether that user exists, and
// for the user's tokens. Hides the pause before Auth is asked, and answers that arrive too late.
import { useEffect, useState } from 'preact/hooks'
import type { LiveTokens } from './liveTokens.ts'
import type { TokenFilter } from './tokens.ts'

const pauseMs = 400 // after the last key press, because each question appears in Auth's log

export interface UserFilter extends TokenFilter {
  /** Whether Auth knows a user with this name or id; `asking` also if the text is empty. */
  state: 'asking' | 'found' | 'unknown' | 'no answer'
  type(text: string): void
}

/** Asks again each time the event stream has connected, because events may be missing. */
export function useUserFilter({ addTokensOf, connections }: LiveTokens): UserFilter {
  const [filter, setFilter] = useState<Omit<UserFilter, 'type'>>({ text: '', state: 'asking', userId: null })
  const { text } = filter
  useEffect(() => {
    const nameOrId = text.trim()
    if (nameOrId === '') return
    let isCurrent = true
    const timer = setTimeout(async () => {
      const userId = await addTokensOf(nameOrId)
      if (!isCurrent) return
      const state = userId === undefined ? 'no answer' : userId === null ? 'unknown' : 'found'
      setFilter({ text, state, userId: userId ?? null })
    }, pauseMs)
    return () => {
      isCurrent = false
      clearTimeout(timer)
    }
  }, [text, connections])
  return { ...filter, type: text => setFilter({ text, state: 'asking', userId: null }) }
}
