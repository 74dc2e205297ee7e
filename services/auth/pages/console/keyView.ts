// The section of the API keys: the form that creates one, and a card for each with its ring, its secret and its delegated tokens.
import { type ComponentChildren, h } from 'preact'
import { useState } from 'preact/hooks'
import { now } from './clock.ts'
import {
  delegateButton,
  delegatedList,
  delegation,
  innerRings,
  lastAnswer,
  pauseAndEnd,
  ringOf,
} from './delegationView.ts'
import { CopyButton } from './exchangeView.ts'
import { type Key, type Keys, nameOf, type Standing } from './keys.ts'
import { durationOf, ring } from './ring.ts'
import type { Sessions } from './sessions.ts'
import { counted, fieldOf, html, times, useTick } from './ui.ts'

interface Props {
  keys: Keys
  sessions: Sessions
  /** Whether this page knows the address of Business. */
  canGetData: boolean
}

export function KeySection({ keys, sessions, canGetData }: Props) {
  useTick(keys.expire)
  const { list } = keys
  const apiKeys = list.filter(({ parentId }) => parentId === null)
  const parents = new Set([...list.map(({ id }) => id), ...sessions.list.map(({ tokenId }) => tokenId)])
  const others = list.filter(({ parentId }) => parentId !== null && !parents.has(parentId))
  const isEmpty = list.length === 0 && sessions.list.length === 0
  return html`
    <section aria-labelledby="keys-title">
      <h2 id="keys-title">API keys</h2>
      ${
        isEmpty
          ? html`<p class="empty">Log in, and create a key for a program. A key can delegate weaker tokens, which appear as rings within its ring.</p>`
          : html`
              <div class="panel">
                ${h(KeyForm, { keys, sessions })}
                <p class="quiet">A key can delegate weaker tokens, as a session can. End or pause it, and the very next request with each of them is refused.</p>
              </div>
              <ul class="cards">
                ${apiKeys.map(key => card(key, keys, canGetData))}
              </ul>
              ${others.length > 0 && html`<h3>Delegated elsewhere</h3> ${delegatedList(others, 'Delegated from sessions that are not in this page', 'session', { keys, canGetData })}`}
            `
      }
    </section>
  `
}

type Submit = SubmitEvent & { currentTarget: HTMLFormElement }

function KeyForm({ keys, sessions }: Pick<Props, 'keys' | 'sessions'>) {
  const [problem, setProblem] = useState<string | null>(null)
  const [username, setUsername] = useState('')
  const usernames = [...new Set(sessions.list.filter(({ state }) => state === 'live').map(({ username }) => username))]
  const user = usernames.includes(username) ? username : (usernames[0] ?? null)
  const session = user === null ? null : keys.sessionOf(user)

  async function submit(event: Submit): Promise<void> {
    event.preventDefault()
    const form = event.currentTarget
    const fields = new FormData(form)
    if (session === null) return
    const problem = await keys.create(session, { name: fieldOf(fields, 'name'), scope: fieldOf(fields, 'scope') })
    setProblem(problem)
    if (problem === null) form.reset()
  }

  const choose = (event: Event & { currentTarget: HTMLSelectElement }) => setUsername(event.currentTarget.value)
  return html`
    <form class="fields" onSubmit=${submit}>
      ${
        usernames.length > 1 &&
        html`<label>User
          <select name="user" value=${user} onChange=${choose}>${usernames.map(name => html`<option key=${name} value=${name}>${name}</option>`)}</select>
        </label>`
      }
      <label>Name of the key <input name="name" maxlength="64" autocomplete="off" autocapitalize="none" placeholder="deploy" required /></label>
      <label>Scope (optional) <input name="scope" autocomplete="off" autocapitalize="none" spellcheck=${false} placeholder="orders:read orders:write" /></label>
      <div class="row">
        <button class="main" disabled=${session === null}>Create a key</button>
        <button type="button" disabled=${session === null} onClick=${() => session && keys.read(session)}>List my keys</button>
      </div>
      ${session === null && html`<p class="quiet">Log in to create, pause or end keys.</p>`}
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    </form>
  `
}

function card(key: Key, keys: Keys, canGetData: boolean): ComponentChildren {
  const { id, username, scope, isCanary, secret, isSecretShown, isBusy, paused, lastStatus } = key
  const name = nameOf(key)
  const standing = keys.standingOf(key)
  const inner = innerRings(id, keys)
  const canDelegate = secret !== null && standing === 'live'
  return html`
    <li key=${id} class=${`card ${standing} ${inner.length > 0 ? 'parent' : ''}`} data-key=${id} data-standing=${standing}>
      ${ring({ ...ringOf(key, standing), label: `Key ${name}`, inner })}
      <div class="about">
        <h3>${name} ${isCanary && html`<span class="badge refused">canary</span>`}</h3>
        <p class="quiet"><code>${id}</code> of ${username}</p>
        <p class="quiet">${scope === null ? 'may do what its user may' : `scope ${scope || 'none'}`}</p>
        <p class="state"><span class="badge">${standing}</span> ${explain(key, standing)}</p>
        ${lastStatus !== null && lastAnswer(key)}
      </div>
      ${isSecretShown && secret !== null && key.end === null && shownSecret(name, secret, () => keys.hideSecret(key))}
      <div class="row">
        ${secret !== null && html`<button class="main" aria-label=${`Get data with ${name}`} disabled=${isBusy || !canGetData} onClick=${() => keys.getData(key)}>Get data</button>`}
        ${pauseAndEnd(key, paused, keys)}
        ${canDelegate && delegateButton(key, keys)}
      </div>
      ${delegation({ keys, parent: key, canDelegate, canGetData })}
    </li>
  `
}

function shownSecret(name: string, secret: string, hide: () => void): ComponentChildren {
  return html`
    <div class="secret">
      <p>The secret, which is shown only now:</p>
      <p><code>${secret}</code></p>
      ${h(CopyButton, { text: secret, label: 'Copy the secret', subject: name })}
      <button type="button" class="plain" aria-label=${`Hide the secret of ${name}`} onClick=${hide}>Hide</button>
    </div>
  `
}

function explain({ useCount, lastUsedAt, lastStatus }: Key, standing: Standing): string {
  if (standing === 'live') return `used ${times(useCount)}${lastUsedAt === null ? '' : `, last ${ago(lastUsedAt)}`}`
  if (standing === 'paused') return 'Refused until it is resumed, with all that it delegated.'
  if (standing === 'refused') return 'It was ended, is paused, or had expired.'
  const what = standing === 'expired' ? 'Its time is over.' : 'It has ended, with all that it delegated.'
  return lastStatus === 401 ? what : `${what} The very next request is refused. Try it.`
}

/** "1 second ago", "5 minutes ago". */
function ago(at: number): string {
  const [amount, unit] = durationOf(Math.max(0, now() - at))
  return `${counted(amount, unit.slice(0, -1))} ago`
}
