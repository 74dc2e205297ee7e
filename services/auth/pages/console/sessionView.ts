// The log-in panel, and a card for each session: its ring, its actions, and the last answer.
import type { ComponentChildren } from 'preact'
import { useState } from 'preact/hooks'
import { now } from './clock.ts'
import { ring } from './ring.ts'
import type { Session, Sessions } from './sessions.ts'
import type { ConsoleSettings } from './settings.ts'
import { fieldOf, html, times, useTick } from './ui.ts'

interface Props {
  sessions: Sessions
  settings: ConsoleSettings
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

export function SessionCards({ sessions, settings }: Props) {
  useTick(sessions.expire)
  return html`
    <section aria-labelledby="sessions-title">
      <h2 id="sessions-title">Sessions</h2>
      ${
        sessions.list.length === 0
          ? html`<p class="empty">Log in, and your token appears here as a ring that drains.</p>`
          : html`<ul class="cards">
              ${sessions.list.map(session => card(session, sessions, settings))}
            </ul>`
      }
    </section>
  `
}

function card(session: Session, sessions: Sessions, { ttlMs, businessUrl }: ConsoleSettings): ComponentChildren {
  const { id, username, tokenId, state, message, isBusy, expiresAt } = session
  const isLive = state === 'live'
  const cannotSend = isBusy || businessUrl === null
  return html`
    <li key=${id} class=${`card ${state}`} data-state=${state}>
      ${ring({ leftMs: expiresAt - now(), wholeMs: ttlMs, isLive, label: `Session of ${username}` })}
      <div class="about">
        <h3>${username}</h3>
        <p class="quiet"><code>${tokenId}</code></p>
        <p class="state"><span class="badge">${state}</span> ${explain(session, ttlMs)}</p>
        <p class=${state === 'refused' ? 'said bad' : 'said'}>${message ?? ''}</p>
      </div>
      <div class="row">
        <button class="main" disabled=${cannotSend} onClick=${() => sessions.getData(session)}>Get data</button>
        <button disabled=${cannotSend} title="200 requests at once" onClick=${() => sessions.sendBurst(session)}>Burst</button>
        ${
          isLive
            ? html`<button onClick=${() => sessions.end(session)}>End</button>
                <button onClick=${() => sessions.endAll(session)} title=${`Every session of ${username}`}>End all</button>`
            : html`<button onClick=${() => sessions.remove(session)}>Remove</button>`
        }
      </div>
    </li>
  `
}

function explain({ state, cause, slides }: Session, ttlMs: number): string {
  if (state === 'live') return slides === 0 ? 'not used yet' : `slid ${times(slides)}`
  if (state === 'expired') {
    return `unused for ${Math.round(ttlMs / 1000)} s. The next request is refused, swept or not.`
  }
  if (state === 'ended') return 'The very next request is refused. Try it.'
  if (cause === 'expired') return 'It had expired. The sweeper frees its memory.'
  return cause === 'ended' ? 'It was ended.' : 'It was ended or had expired.'
}
