// The operator's keys: the list with its search, and what can be done with each.
import { type ComponentChildren, h } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { now } from './clock.ts'
import { labelOf, type WatchedKey, type WatchedKeys } from './operatorKeys.ts'
import { ring } from './ring.ts'
import type { Tokens } from './tokens.ts'
import { counted, fieldOf, html, shownRate, times } from './ui.ts'

type Submit = SubmitEvent & { currentTarget: HTMLFormElement }

export function keyList(keys: WatchedKeys, nameOf: Tokens['nameOf']): ComponentChildren {
  const list = keys.list()
  const read = (event: Submit) => {
    event.preventDefault()
    void keys.read(fieldOf(new FormData(event.currentTarget), 'user'))
  }
  return html`
    <section class="panel" aria-labelledby="keys-title">
      <form class="titled" onSubmit=${read}>
        <h2 id="keys-title">Keys</h2>
        <label class="filter">Of one user, or nothing for all <input name="user" type="search" maxlength="256" autocomplete="off" autocapitalize="none" /></label>
        <button>List keys</button>
      </form>
      ${keys.problem && html`<p class="problem" role="alert">${keys.problem}</p>`}
      ${list === null && html`<p class="quiet">API keys and delegated tokens. Auth looks for them among all its tokens, so they are listed only when you ask.</p>`}
      ${list?.length === 0 && !keys.problem && html`<p class="quiet">There are none.</p>`}
      ${
        list !== null &&
        list.length > 0 &&
        html`<ul class="tokens" tabindex="0" aria-label="Keys, the newest first, each with its delegated tokens">
          ${list.map(key => row(key, keys, nameOf))}
        </ul>`
      }
      ${keys.hasMore && html`<div class="row"><button type="button" onClick=${keys.readMore}>List more keys</button></div>`}
    </section>
  `
}

function row(key: WatchedKey, keys: WatchedKeys, nameOf: Tokens['nameOf']): ComponentChildren {
  const { id, parentId, userId, username, canary, paused, expiresAt, createdAt, useCount } = key
  const name = labelOf(key)
  const known = nameOf(userId)
  const owner = known === null || known === userId ? username : known
  const standing = keys.standingOf(key)
  const isLive = standing === 'live' || standing === 'paused'
  const facts = [factsOf(key), `used ${times(useCount)}${shownLast(key)}`].filter(Boolean).join(' · ')
  const kind = parentId === null ? 'Key' : 'Delegated token'
  const verb = paused ? 'Resume' : 'Pause'
  const leftMs = expiresAt === null ? null : expiresAt - now()
  const timing = { leftMs, wholeMs: (expiresAt ?? 0) - createdAt, isLive, isPaused: standing === 'paused' }
  return html`
    <li key=${id} class=${parentId === null ? '' : 'child'} data-key=${id} data-standing=${standing}>
      ${ring({ ...timing, label: `${kind} ${name} of ${owner}`, isSmall: true })}
      <div>
        <b>${name}</b> ${canary && html`<span class="badge refused">canary</span>`} <code>${id}</code>
        <p class="quiet">${owner}${parentId !== null && html` · delegated from <code>${parentId}</code>`} · ${canary && useCount > 0 ? html`<span class="bad">${facts}</span>` : facts}</p>
      </div>
      <span class=${`badge ${standing === 'live' ? 'live' : standing === 'paused' ? 'refused' : ''}`}>${standing}</span>
      <span class="row">
        ${isLive && html`<button type="button" class="plain" aria-label=${`${verb} ${name}`} onClick=${() => keys.setPaused(key, !paused)}>${verb}</button>`}
        ${isLive && h(EndButton, { name, others: keys.childrenOf(id).length, end: () => keys.end(key) })}
      </span>
    </li>
  `
}

/** The scope and the rate; empty if there is neither. */
function factsOf({ scope, rate }: WatchedKey): string {
  return [scope !== null && `scope ${scope || 'none'}`, rate && shownRate(rate)].filter(Boolean).join(' · ')
}

function shownLast({ lastUsedAt }: WatchedKey): string {
  return lastUsedAt === null ? '' : `, last at ${new Date(lastUsedAt).toLocaleString('en-GB')}`
}

interface EndButtonProps {
  name: string
  /** How many tokens end with it. */
  others: number
  end: () => void
}

/** Asks before it ends the key. The harmless answer has the focus, and a double click does not confirm. */
function EndButton({ name, others, end }: EndButtonProps) {
  const [isAsking, setIsAsking] = useState(false)
  const keep = useRef<HTMLButtonElement>(null)
  useEffect(() => {
    if (isAsking) keep.current?.focus()
  }, [isAsking])
  if (!isAsking) {
    return html`<button type="button" class="plain" aria-label=${`End ${name}`} onClick=${() => setIsAsking(true)}>End</button>`
  }
  const press = ({ detail }: MouseEvent) => detail < 2 && end()
  const question = `End ${name}${others > 0 ? ` and ${counted(others, 'delegated token')}` : ''}?`
  return html`
    <span class="question" role="group" aria-label=${question}>
      <span>${question}</span>
      <button type="button" class="plain bad" aria-label=${`End it: ${name}`} onClick=${press}>End it</button>
      <button type="button" class="plain" ref=${keep} aria-label=${`Keep ${name}`} onClick=${() => setIsAsking(false)}>Keep</button>
    </span>
  `
}
