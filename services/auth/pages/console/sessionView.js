// How to log in, and a card for each session: its ring, what may be done with it, what was answered.
import { now } from './clock.ts'
import { ring } from './ring.js'
import { html, textOf } from './ui.js'

/** @typedef {import('./sessions.js').Session} Session */
/** @typedef {ReturnType<typeof import('./sessions.js').createSessions>} Sessions */
/** @typedef {import('./sessions.js').Settings} Settings */

/** @param {{ sessions: Sessions, settings: Settings }} of */
export function logInPanel({ sessions, settings }) {
  const { problem, isLoggingIn } = sessions.state
  const { shownDemoUser, isRegistrationSimple } = settings
  /** @param {SubmitEvent & { currentTarget: HTMLFormElement }} event */
  const submit = async event => {
    event.preventDefault()
    const form = event.currentTarget
    const given = new FormData(form)
    const hasWorked = await sessions.logIn({
      username: textOf(given, 'username'),
      password: String(given.get('password')),
    })
    if (hasWorked) form.reset()
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
            html`<button type="button" class="main" disabled=${isLoggingIn} onClick=${() => sessions.logIn(shownDemoUser)}>
              Use the demo user
            </button>`
          }
          ${
            isRegistrationSimple &&
            html`<button type="button" disabled=${isLoggingIn} onClick=${() => sessions.logInAsSomebodyNew()}>
              Invent a user
            </button>`
          }
        </div>
      </form>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      <p class="quiet">Tokens and passwords stay in the memory of this page; closing it forgets them.</p>
    </section>
  `
}

/** @param {{ sessions: Sessions, settings: Settings }} of */
export function sessionCards({ sessions, settings }) {
  const list = sessions.state.sessions
  return html`
    <section aria-labelledby="sessions-title">
      <h2 id="sessions-title">Sessions</h2>
      ${
        list.length === 0
          ? html`<p class="empty">Log in, and the token that you get appears here as a ring that drains.</p>`
          : html`<ul class="cards">
              ${list.map(session => card(session, sessions, settings))}
            </ul>`
      }
    </section>
  `
}

/** @param {Session} session @param {Sessions} sessions @param {Settings} settings */
function card(session, sessions, { ttlMs, businessUrl }) {
  const { id, username, tokenId, state, slides, said, isBusy, expiresAt } = session
  const isLive = state === 'live'
  const cannotAsk = isBusy || businessUrl === null
  return html`
    <li key=${id} class=${`card ${state}`} data-state=${state}>
      ${ring({ leftMs: expiresAt - now(), wholeMs: ttlMs, isLive, label: `Session of ${username}` })}
      <div class="about">
        <h3>${username}</h3>
        <p class="quiet"><code>${tokenId}</code></p>
        <p class="state"><span class="badge">${state}</span> ${sentenceOf(session, slides, ttlMs)}</p>
        <p class=${state === 'refused' ? 'said bad' : 'said'}>${said ?? ''}</p>
      </div>
      <div class="row">
        <button class="main" disabled=${cannotAsk} onClick=${() => sessions.getData(session)}>Get data</button>
        <button disabled=${cannotAsk} title="200 requests at once" onClick=${() => sessions.sendBurst(session)}>Burst</button>
        ${
          isLive
            ? html`<button onClick=${() => sessions.end(session)}>End</button>
                <button onClick=${() => sessions.endAll(session)} title=${`Every session of ${username}`}>End all</button>`
            : html`<button onClick=${() => sessions.forget(session)}>Remove</button>`
        }
      </div>
    </li>
  `
}

/** @param {Session} session @param {number} slides @param {number} ttlMs */
function sentenceOf({ state, cause }, slides, ttlMs) {
  const seconds = Math.round(ttlMs / 1000)
  if (state === 'live')
    return slides === 0 ? 'not used yet' : `slid ${slides === 1 ? 'once' : `${slides.toLocaleString('en')} times`}`
  if (state === 'expired') return `unused for ${seconds} s. The next request is refused, swept or not.`
  if (state === 'ended') return 'The very next request is refused. Try it.'
  if (cause === 'expired') return 'It had expired; the sweeper gives its memory back.'
  return cause === 'ended' ? 'It had been ended.' : 'It was ended or had expired.'
}
