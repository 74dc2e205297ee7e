// The operator's tokens: the filtered list with what can be done with each, and the panel that issues one.
import { type ComponentChildren, h } from 'preact'
import { useState } from 'preact/hooks'
import type { TokenKind } from '../../../../packages/client/contract.ts'
import { now } from './clock.ts'
import { CopyButton } from './exchangeView.ts'
import { ring } from './ring.ts'
import type { Tokens, WatchedToken } from './tokens.ts'
import { fieldOf, html, shownRate, times } from './ui.ts'
import type { UserFilter } from './userFilter.ts'

export interface IssueTerms {
  kind: TokenKind
  ttlSeconds: number
  /** Empty for a guest. */
  username: string
  /** Empty for no restriction. */
  scope: string
}

export interface IssuedToken {
  kind: TokenKind
  tokenId: string
  token: string
}

export interface Actions {
  sweep(): Promise<void>
  endToken(id: string): Promise<void>
  pauseToken(id: string, paused: boolean): Promise<void>
  endAllOf(id: string, name: string): Promise<void>
  /** Resolves to the token, or to the reason why it was not issued. */
  issue(terms: IssueTerms): Promise<IssuedToken | string>
  validate(token: string): Promise<void>
}

const maxRows = 60

export function tokenList(tokens: Tokens, filter: UserFilter, actions: Actions): ComponentChildren {
  const all = tokens.matching(filter)
  const rows = all.slice(0, maxRows)
  const isPartial = all.length > rows.length || !tokens.isComplete
  const type = (event: InputEvent & { currentTarget: HTMLInputElement }) => filter.type(event.currentTarget.value)
  return html`
    <section class="panel" aria-labelledby="tokens-title">
      <div class="titled">
        <h2 id="tokens-title">Tokens</h2>
        <label class="filter">Only of the user
          <input type="search" maxlength="256" value=${filter.text} onInput=${type} />
        </label>
        <button type="button" onClick=${actions.sweep}>Sweep now</button>
      </div>
      ${rows.length === 0 && html`<p class="quiet">${explainNone(filter)}</p>`}
      <ul class="tokens" tabindex="0" aria-label="Tokens, the newest first">
        ${rows.map(token => row(token, tokens.nameOf(token.userId) ?? 'a guest', actions))}
      </ul>
      ${all.length > rows.length && html`<p class="quiet">And ${all.length - rows.length} more.</p>`}
      ${
        isPartial &&
        filter.state !== 'found' &&
        html`<p class="quiet">Not all tokens in the store are shown. Enter the full name or the id of a user to load that user’s tokens.</p>`
      }
    </section>
  `
}

function explainNone({ text, state }: UserFilter): string {
  if (text.trim() === '') return 'There are none.'
  if (state === 'asking') return 'Asking Auth …'
  if (state === 'found') return 'This user has none.'
  if (state === 'no answer') return 'No token here matches, and Auth does not answer.'
  return 'No token matches, and Auth knows no such user. It finds a user by the full name or the id.'
}

function row(token: WatchedToken, owner: string, actions: Actions): ComponentChildren {
  const { id, kind, purpose, userId, state, uses, refusals, reason, expiresAt, wholeMs, scope, paused } = token
  const isLive = state === 'live'
  return html`
    <li key=${id} class=${state} data-state=${state} data-id=${id}>
      ${ring({ leftMs: expiresAt - now(), wholeMs: wholeMs ?? 1, isLive, label: `Token ${id} of ${owner}`, isSmall: true })}
      <div>
        <b>${owner}</b> <code>${id}</code>
        <p class="quiet">${kind}${purpose && ` for ${purpose}`}${scope !== null && ` · scope ${scope}`} ${limits(token)} · used ${times(uses)}${
          refusals > 0 ? html` · <span class="bad">refused ${times(refusals)}: ${reason}</span>` : ''
        }</p>
      </div>
      <span class=${`badge ${isLive ? (paused ? 'refused' : 'live') : ''}`}>${isLive && paused ? 'paused' : state}</span>
      <span class="row">
        ${isLive && html`<button class="plain" aria-label=${`End token ${id}`} onClick=${() => actions.endToken(id)}>End</button>`}
        ${isLive && html`<button class="plain" aria-label=${`${paused ? 'Resume' : 'Pause'} token ${id}`} onClick=${() => actions.pauseToken(id, !paused)}>${paused ? 'Resume' : 'Pause'}</button>`}
        ${isLive && userId && html`<button class="plain" aria-label=${`End all of this user: ${owner}`} onClick=${() => actions.endAllOf(userId, owner)}>End all of this user</button>`}
      </span>
    </li>
  `
}

function limits({ rate, usesLeft }: WatchedToken): string {
  return `${rate ? ` · ${shownRate(rate)}` : ''}${usesLeft === null ? '' : ` · ${usesLeft} left`}`
}

export function IssuePanel({ actions }: { actions: Actions }) {
  const [issued, setIssued] = useState<IssuedToken | null>(null)
  const [problem, setProblem] = useState<string | null>(null)

  async function submit(event: SubmitEvent & { currentTarget: HTMLFormElement }): Promise<void> {
    event.preventDefault()
    const fields = new FormData(event.currentTarget)
    setIssued(null)
    const result = await actions.issue({
      kind: fieldOf(fields, 'kind') as TokenKind,
      ttlSeconds: Number(fieldOf(fields, 'ttlSeconds')),
      username: fieldOf(fields, 'username'),
      scope: fieldOf(fields, 'scope'),
    })
    setIssued(typeof result === 'string' ? null : result)
    setProblem(typeof result === 'string' ? result : null)
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
        <label>Scope, or nothing for no restriction <input name="scope" maxlength="256" autocomplete="off" autocapitalize="none" /></label>
        <div class="row"><button class="main">Issue</button></div>
      </form>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      ${
        issued &&
        html`<div class="issued">
          <p>A ${issued.kind} token. Its secret is not shown again.</p>
          <p><code>${issued.tokenId}</code></p>
          <div class="row">
            <button onClick=${() => actions.validate(issued.token)}>Validate it</button>
            ${h(CopyButton, { key: issued.tokenId, text: issued.token, label: 'Copy the secret', subject: issued.tokenId })}
          </div>
        </div>`
      }
    </section>
  `
}
