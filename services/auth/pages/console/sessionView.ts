// The log-in panel, and a card for each session: its ring, its actions, and the last answer.
import type { ComponentChildren } from 'preact'
import { useState } from 'preact/hooks'
import type { AdminData } from './adminData.ts'
import { now } from './clock.ts'
import { delegateButton, delegation, innerRings } from './delegationView.ts'
import type { HeldConnection, HeldConnections } from './heldConnections.ts'
import type { Keys } from './keys.ts'
import { ring } from './ring.ts'
import type { Session, Sessions } from './sessions.ts'
import type { ConsoleSettings } from './settings.ts'
import { counted, fieldOf, formatMs, html, times, useTick } from './ui.ts'

interface Props {
  sessions: Sessions
  settings: ConsoleSettings
}

interface CardProps extends Props {
  connections: HeldConnections
  adminData: AdminData
  keys: Keys
}

export function LogInPanel({ sessions, settings }: Props) {
  const { shownDemoUser, isRegistrationSimple } = settings
  const [problem, setProblem] = useState<string | null>(null)
  const [isLoggingIn, setIsLoggingIn] = useState(false)

  async function attempt(logIn: () => Promise<string | null>): Promise<boolean> {
    setProblem(null)
    setIsLoggingIn(true)
    const problem = await logIn()
    setIsLoggingIn(false)
    setProblem(problem)
    return problem === null
  }

  async function submit(event: SubmitEvent & { currentTarget: HTMLFormElement }): Promise<void> {
    event.preventDefault()
    const form = event.currentTarget
    const fields = new FormData(form)
    const credentials = { username: fieldOf(fields, 'username'), password: String(fields.get('password')) }
    if (await attempt(() => sessions.logIn(credentials))) form.reset()
  }

  return html`
    <section class="panel" aria-labelledby="log-in-title">
      <h2 id="log-in-title">Log in</h2>
      <form onSubmit=${submit}>
        <label>Username <input name="username" autocomplete="username" autocapitalize="none" spellcheck=${false} required /></label>
        <label>Password <input name="password" type="password" autocomplete="current-password" required /></label>
        <div class="row">
          <button class=${shownDemoUser ? '' : 'main'} disabled=${isLoggingIn}>Log in</button>
          ${
            shownDemoUser &&
            html`<button type="button" class="main" disabled=${isLoggingIn} onClick=${() => attempt(() => sessions.logIn(shownDemoUser))}>
              Use the demo user
            </button>`
          }
          ${
            isRegistrationSimple &&
            html`<button type="button" disabled=${isLoggingIn} onClick=${() => attempt(sessions.logInAsNewUser)}>
              Invent a user
            </button>`
          }
        </div>
      </form>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      <p class="quiet">The page keeps tokens and passwords in memory only, until you close the page.</p>
    </section>
  `
}

export function SessionCards(props: CardProps) {
  const { sessions } = props
  useTick(sessions.expire)
  return html`
    <section aria-labelledby="sessions-title">
      <h2 id="sessions-title">Sessions</h2>
      ${
        sessions.list.length === 0
          ? html`<p class="empty">Log in, and your token appears here as a ring that drains.</p>`
          : html`<ul class="cards">
              ${sessions.list.map(session => card(session, props))}
            </ul>`
      }
    </section>
  `
}

function card(session: Session, { sessions, connections, adminData, keys, settings }: CardProps): ComponentChildren {
  const { ttlMs, businessUrl } = settings
  const { id, username, tokenId, state, message, isBusy, expiresAt } = session
  const connection = connections.of(session)
  const asAdmin = adminData.of(session)
  const isRefusal = state === 'refused' || (message !== null && message === asAdmin?.refusal)
  const isLive = state === 'live'
  const remove = () => {
    connections.release(session)
    keys.remove(tokenId)
    sessions.remove(session)
  }
  const endAll = async () => {
    if (await sessions.endAll(session)) keys.noteAllEnded(username)
  }
  const cannotSend = isBusy || businessUrl === null
  const inner = innerRings(tokenId, keys)
  return html`
    <li key=${id} class=${`card ${state} ${inner.length > 0 ? 'parent' : ''}`} data-state=${state}>
      ${ring({ leftMs: expiresAt - now(), wholeMs: ttlMs, isLive, label: `Session of ${username}`, inner })}
      <div class="about">
        <h3>${username}</h3>
        <p class="quiet"><code>${tokenId}</code></p>
        <p class="state"><span class="badge">${state}</span> ${explain(session, ttlMs)}</p>
        <p class=${isRefusal ? 'said bad' : 'said'}>${message ?? ''}</p>
        ${asAdmin && html`<p class="quiet">Roles: ${asAdmin.roles.join(', ') || 'none'}</p>`}
        ${connection && connectionLine(connection, session)}
      </div>
      <div class="row">
        <button class="main" disabled=${cannotSend} onClick=${() => sessions.getData(session)}>Get data</button>
        <button disabled=${cannotSend} title="Needs the role admin" onClick=${() => adminData.get(session)}>Admin data</button>
        <button disabled=${cannotSend} title="200 requests at once" onClick=${() => sessions.sendBurst(session)}>Burst</button>
        ${
          connection?.overAt === null
            ? html`<button onClick=${() => connections.release(session)}>Release</button>`
            : html`<button disabled=${businessUrl === null} title="Open a connection that ends with the session" onClick=${() => connections.hold(session)}>
                Hold
              </button>`
        }
        ${
          isLive
            ? html`<button onClick=${() => sessions.end(session)}>End</button>
                <button onClick=${endAll} title=${`Every session and key of ${username}`}>End all</button>
                ${delegateButton(session, keys)}`
            : html`<button onClick=${remove}>Remove</button>`
        }
      </div>
      ${delegation({ keys, parent: session, canDelegate: isLive, canGetData: businessUrl !== null })}
    </li>
  `
}

function connectionLine({ events, outcome, openedAt, overAt }: HeldConnection, session: Session): ComponentChildren {
  if (overAt === null) {
    const seconds = Math.floor((performance.now() - openedAt) / 1000)
    return html`<p class="connection open">Connection open for ${seconds} s, ${counted(events, 'event')}</p>`
  }
  const endedAt = endOf(session)
  const after =
    endedAt === null || endedAt > overAt
      ? `It was open for ${formatMs(overAt - openedAt)}`
      : `It took ${formatMs(overAt - endedAt)} after the end of the session`
  return html`<p class="connection over">${outcome}. ${after}.</p>`
}

/** By `performance.now()`; null if this page does not know it. */
function endOf({ state, endedAt, expiresAt }: Session): number | null {
  return state === 'expired' ? expiresAt - now() + performance.now() : endedAt
}

function explain({ state, cause, slides }: Session, ttlMs: number): string {
  if (state === 'live') return slides === 0 ? 'not used yet' : `slid ${times(slides)}`
  if (state === 'expired') {
    return `unused for ${Math.round(ttlMs / 1000)} s. The next request is refused, swept or not.`
  }
  if (state === 'ended') return 'The very next request is refused. Try it.'
  if (cause === 'expired') return 'It had expired. The sweeper frees its memory.'
  return cause === 'ended' ? 'It was ended.' : 'It was ended, is paused, or had expired.'
}
