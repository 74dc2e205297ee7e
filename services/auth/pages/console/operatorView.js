// What an operator sees: the key, the charts, the tokens and what may be done with them, the events.
import { chart, shown } from './charts.js'
import { now } from './clock.ts'
import { copyButton } from './exchangeView.js'
import { kinds } from './figures.js'
import { ring } from './ring.js'
import { html, textOf } from './ui.js'

/** @typedef {ReturnType<typeof import('./tokens.js').createTokens>} Tokens */
/** @typedef {import('./tokens.js').WatchedToken} WatchedToken */
/** @typedef {import('./figures.js').Sample} Sample */
/** @typedef {import('./eventStream.js').StreamState} StreamState */
/**
 * What the operator can do from these views.
 * @typedef {object} Actions
 * @property {(text: string) => void} filter
 * @property {() => Promise<void>} sweep
 * @property {(id: string) => Promise<void>} endToken
 * @property {(id: string, name: string) => Promise<void>} endUser
 * @property {(terms: { kind: string, ttlSeconds: number, username: string }) => Promise<void>} issue
 * @property {(token: string) => Promise<void>} validate
 */
/** @typedef {import('./userFilter.js').UserFilter} UserFilter */

const mostRows = 60

/** @param {{ problem: string | null, connect: (key: string) => void }} of */
export function keyPanel({ problem, connect }) {
  /** @param {SubmitEvent & { currentTarget: HTMLFormElement }} event */
  const submit = event => {
    event.preventDefault()
    connect(textOf(new FormData(event.currentTarget), 'key'))
    event.currentTarget.reset()
  }
  return html`
    <section class="panel key" aria-labelledby="key-title">
      <h2 id="key-title">The admin key</h2>
      <form onSubmit=${submit}>
        <label>ADMIN_KEY <input name="key" type="password" autocomplete="off" spellcheck=${false} required /></label>
        <div class="row"><button class="main">Open the view</button></div>
      </form>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      <p class="quiet">In development it is in the file <code>.env</code>. It stays in the memory of this page; closing it forgets it.</p>
    </section>
  `
}

/** @param {{ stream: StreamState, dropped: number, leave: () => void }} of */
export function streamLine({ stream, dropped, leave }) {
  const words = {
    connecting: 'Connecting to the events …',
    live: 'Events are live.',
    waiting: `The event stream broke off (${stream.why}). Again in ${stream.seconds} s.`,
    refused: stream.why,
  }
  return html`
    <div class="stream">
      <p role="status"><span class=${`badge ${stream.name === 'live' ? 'live' : 'refused'}`}>${stream.name}</span> ${words[stream.name]}
        ${dropped > 0 && html` <span class="bad">${shown(dropped)} events were too many and are not shown.</span>`}</p>
      <button type="button" onClick=${leave}>Forget the key</button>
    </div>
  `
}

/** @param {Sample[]} samples */
export function charts(samples) {
  const last = samples.at(-1)
  /** @param {(sample: Sample) => number | null} value */
  const line = value => samples.map(value)
  const sum = (/** @type {Sample} */ { tokens }) => Object.values(tokens).reduce((all, count) => all + count, 0)
  const latest = (/** @type {(sample: Sample) => number | null} */ value) =>
    samples.map(value).findLast(v => v !== null)
  return html`
    <section aria-labelledby="figures-title">
      <h2 id="figures-title">The last minute</h2>
      <ul class="charts">
        ${chart({
          title: 'Tokens in the store',
          now: last ? shown(sum(last)) : '–',
          lines: kinds.map(kind => line(s => s.tokens[kind] ?? null)),
          kinds,
          about: 'The dead count until they are swept.',
        })}
        ${chart({
          title: 'Log-ins per second',
          now: shown(last?.logins),
          lines: [line(s => s.logins), line(s => s.failedLogins)],
          about: `${shown(last?.failedLogins)} failed.`,
        })}
        ${chart({
          title: 'Verdicts per second',
          now: shown(last?.admitted),
          lines: [line(s => s.admitted), line(s => s.refused)],
          about: `${shown(last?.refused)} refused.`,
        })}
        ${chart({
          title: 'Verdicts per call',
          now: shown(latest(s => s.batch)),
          lines: [line(s => s.batch)],
          about: 'Requests that shared one call.',
        })}
        ${chart({
          title: 'A call takes, p50',
          now: `${shown(latest(s => s.p50))} ms`,
          lines: [line(s => s.p99), line(s => s.p50)],
          about: `p99 ${shown(latest(s => s.p99))} ms, in Auth.`,
        })}
        ${chart({
          title: 'Swept',
          now: shown(samples.reduce((all, { swept }) => all + (swept ?? 0), 0)),
          lines: [line(s => s.swept)],
          about: 'Dead tokens removed in this minute.',
        })}
      </ul>
    </section>
  `
}

/** @param {{ tokens: Tokens, filter: UserFilter, actions: Actions }} of */
export function tokenTable({ tokens, filter, actions }) {
  const all = tokens.shown(filter)
  const rows = all.slice(0, mostRows)
  return html`
    <section class="panel" aria-labelledby="tokens-title">
      <div class="titled">
        <h2 id="tokens-title">Tokens</h2>
        <label class="filter">Only of the user
          <input type="search" maxlength="256" value=${filter.text} onInput=${(/** @type {Event & { currentTarget: HTMLInputElement }} */ event) => actions.filter(event.currentTarget.value)} />
        </label>
        <button type="button" onClick=${actions.sweep}>Sweep now</button>
      </div>
      ${rows.length === 0 && html`<p class="quiet">${whyNone(filter)}</p>`}
      <ul class="tokens" tabindex="0" aria-label="Tokens, the newest first">
        ${rows.map(token => row(token, tokens, actions))}
      </ul>
      ${all.length > rows.length && html`<p class="quiet">And ${all.length - rows.length} more.</p>`}
      ${
        (all.length > rows.length || !tokens.state.isWhole) &&
        filter.state !== 'found' &&
        html`<p class="quiet">Not all that are in the store are here; with the whole name or the id of a user Auth is asked for his.</p>`
      }
    </section>
  `
}

/** @param {UserFilter} filter */
function whyNone({ text, state }) {
  if (text.trim() === '') return 'There are none.'
  if (state === 'asking') return 'Asking Auth …'
  if (state === 'found') return 'This user has none.'
  if (state === 'no answer') return 'None is here of such a user, and Auth gave no answer.'
  return 'None of such a user. Auth finds a user by the whole name or the id.'
}

/** @param {WatchedToken} token @param {Tokens} tokens @param {Actions} actions */
function row(token, tokens, actions) {
  const { id, kind, purpose, userId, state, uses, refusals, reason, expiresAt, wholeMs } = token
  const isLive = state === 'live'
  const who = tokens.nameOf(userId) ?? 'a guest'
  return html`
    <li key=${id} class=${state} data-state=${state} data-id=${id}>
      ${ring({ leftMs: expiresAt - now(), wholeMs, isLive, label: `Token ${id} of ${who}`, isSmall: true })}
      <div>
        <b>${who}</b> <code>${id}</code>
        <p class="quiet">${kind}${purpose && ` for ${purpose}`} · ${uses === 1 ? 'used once' : `used ${shown(uses)} times`}${
          refusals > 0
            ? html` · <span class="bad">refused ${refusals === 1 ? 'once' : `${shown(refusals)} times`}: ${reason}</span>`
            : ''
        }</p>
      </div>
      <span class=${`badge ${isLive ? 'live' : ''}`}>${state}</span>
      <span class="row">
        ${isLive && html`<button class="plain" aria-label=${`End token ${id}`} onClick=${() => actions.endToken(id)}>End</button>`}
        ${isLive && userId && html`<button class="plain" aria-label=${`End all of this user: ${who}`} onClick=${() => actions.endUser(userId, who)}>End all of this user</button>`}
      </span>
    </li>
  `
}

/** @param {{ issued: { id: number, tokenId: string, token: string, kind: string } | null, problem: string | null, actions: Actions, draw: () => void }} of */
export function issuePanel({ issued, problem, actions, draw }) {
  /** @param {SubmitEvent & { currentTarget: HTMLFormElement }} event */
  const submit = event => {
    event.preventDefault()
    const given = new FormData(event.currentTarget)
    actions.issue({
      kind: textOf(given, 'kind'),
      ttlSeconds: Number(textOf(given, 'ttlSeconds')),
      username: textOf(given, 'username'),
    })
  }
  return html`
    <section class="panel" aria-labelledby="issue-title">
      <h2 id="issue-title">Issue a token</h2>
      <form onSubmit=${submit}>
        <label>Kind
          <select name="kind">
            <option value="single-use">single-use: admitted once</option>
            <option value="fixed">fixed: does not slide</option>
            <option value="sliding">sliding</option>
          </select>
        </label>
        <label>Lives for, in seconds <input name="ttlSeconds" type="number" min="1" defaultValue="30" required /></label>
        <label>Username, or nothing for a guest <input name="username" autocomplete="off" autocapitalize="none" /></label>
        <div class="row"><button class="main">Issue</button></div>
      </form>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      ${
        issued &&
        html`<div class="issued">
          <p>A ${issued.kind} token; its secret is shown to nobody again.</p>
          <p><code>${issued.tokenId}</code></p>
          <div class="row">
            <button onClick=${() => actions.validate(issued.token)}>Validate it</button>
            ${copyButton({ id: -issued.id, text: issued.token, label: 'Copy the secret', what: issued.tokenId, draw })}
          </div>
        </div>`
      }
    </section>
  `
}

/** @param {{ tokens: Tokens }} of */
export function eventLog({ tokens }) {
  return html`
    <section class="panel" aria-labelledby="events-title">
      <h2 id="events-title">Events</h2>
      ${tokens.log.length === 0 && html`<p class="quiet">Nothing has happened since this page listens.</p>`}
      <ol class="events" tabindex="0" aria-label="Events, the newest first">
        ${tokens.log.map(({ id, name, data }) => {
          const { at, count = 1, tokenId, userId, reason, removed, durationMs, kind } = data
          return html`<li key=${id}>
            <time>${at === undefined ? '' : new Date(at).toLocaleTimeString('en-GB')}</time>
            <b class=${name === 'refused' || name === 'dropped' || name === 'login_failed' ? 'bad' : ''}>${name}</b>
            <span>
              ${tokenId && html`<code>${tokenId}</code> `}${tokens.nameOf(userId) ?? ''}
              ${kind && kind !== 'sliding' ? ` ${kind}` : ''}${reason && ` ${reason}`}
              ${name === 'swept' && ` ${shown(Number(removed))} removed in ${durationMs} ms`}
              ${count > 1 && html` <b>× ${shown(count)}</b>`}
            </span>
          </li>`
        })}
      </ol>
    </section>
  `
}
