// Connections to /data/live, one per session at most, which Business ends with their tokens. Hides the events of the stream.
import { useRef, useState } from 'preact/hooks'
import { now } from './clock.ts'
import { createEventParser } from './eventParser.ts'
import type { Exchanges } from './exchanges.ts'
import type { Session, Sessions } from './sessions.ts'
import { announce } from './ui.ts'

export interface HeldConnection {
  /** Events with data so far. */
  events: number
  /** How it ended, in words; null while it is open. */
  outcome: string | null
  /** On the clock `performance.now()`. */
  openedAt: number
  /** Null while it is open. */
  overAt: number | null
}

export interface HeldConnections {
  /** The last connection of the session; null if none has opened. */
  of(session: Session): HeldConnection | null
  /** Opens a connection. Resolves when it is over. */
  hold(session: Session): Promise<void>
  /** Closes the connection. */
  release(session: Session): void
}

const outcomes: Record<string, string> = {
  ended: 'Business closed the connection, because its token had ended',
  unavailable: 'Business closed the connection, because Auth gave no verdict',
  closed: 'Business closed the connection, because it is shutting down',
}

export function useHeldConnections(url: string, exchanges: Exchanges, sessions: Sessions): HeldConnections {
  const [known, setKnown] = useState(new Map<number, HeldConnection>())
  /** Session -> what closes its connection. */
  const aborts = useRef(new Map<number, AbortController>())

  function show({ id }: Session, connection: HeldConnection): void {
    setKnown(known => new Map(known).set(id, connection))
  }

  async function hold(session: Session): Promise<void> {
    const abort = new AbortController()
    aborts.current.set(session.id, abort)
    const sentAt = now()
    const openedAt = performance.now()
    let events = 0
    let reason = ''
    const read = createEventParser(({ name, data }) => {
      if (name === 'end') reason = (data as { reason: string }).reason
      else show(session, { events: ++events, outcome: null, openedAt, overAt: null })
      if (events === 1) sessions.noteAnswer(session, 200, sentAt)
    })
    const request = { title: 'Hold a connection', method: 'GET', url, token: session.token }
    const { status, problem } = await exchanges.stream(request, abort.signal, read)
    if (status !== 200) return sessions.noteAnswer(session, status, sentAt, problem?.detail)
    const outcome = outcomes[reason] ?? (abort.signal.aborted ? 'You closed the connection' : 'The connection broke')
    announce(`${outcome}.`)
    show(session, { events, outcome, openedAt, overAt: performance.now() })
  }

  return {
    of: ({ id }) => known.get(id) ?? null,
    hold,
    release: ({ id }) => aborts.current.get(id)?.abort(),
  }
}
