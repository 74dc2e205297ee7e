// What was delegated from a session or a key, in the card of that parent: a row for each token, and the form that delegates another.
import { type ComponentChildren, h } from 'preact'
import { useState } from 'preact/hooks'
import { now } from './clock.ts'
import { type Key, type Keys, nameOf, type Standing } from './keys.ts'
import { type InnerRing, ring } from './ring.ts'
import type { Session } from './sessions.ts'
import { counted, fieldOf, html, times } from './ui.ts'

interface Props {
  keys: Keys
  parent: Session | Key
  /** Whether the parent can delegate now. */
  canDelegate: boolean
  /** Whether this page knows the address of Business. */
  canGetData: boolean
}

const defaultTtlSeconds = 60

/** Drawn within the ring of the parent. */
export function innerRings(parentId: string, { list, standingOf }: Keys): InnerRing[] {
  return list.filter(key => key.parentId === parentId).map(key => ringOf(key, standingOf(key)))
}

export function ringOf({ id, createdAt, expiresAt }: Key, standing: Standing): InnerRing {
  const isPaused = standing === 'paused'
  return {
    id,
    leftMs: expiresAt === null ? null : expiresAt - now(),
    wholeMs: (expiresAt ?? 0) - createdAt,
    isLive: standing === 'live' || isPaused,
    isPaused,
  }
}

/** Opens and closes the form. */
export function delegateButton(parent: Session | Key, keys: Keys): ComponentChildren {
  const { id, name } = factsOf(parent)
  const isOpen = keys.formOf === id
  return html`<button type="button" aria-expanded=${isOpen} aria-label=${`Delegate from ${name}`} onClick=${() => keys.openForm(isOpen ? null : id)}>Delegate</button>`
}

/** Null if nothing was delegated and the form is closed. */
export function delegation({ keys, parent, canDelegate, canGetData }: Props): ComponentChildren {
  const { id, kind, name } = factsOf(parent)
  const delegated = keys.list.filter(key => key.parentId === id)
  const isOpen = canDelegate && keys.formOf === id
  if (delegated.length === 0 && !isOpen) return null
  return html`
    <div class="delegation">
      ${isOpen && h(DelegationForm, { keys, parent })}
      ${delegated.length > 0 && delegatedList(delegated, `Delegated from ${name}`, kind, { keys, canGetData })}
    </div>
  `
}

function factsOf(parent: Session | Key): { id: string; kind: 'session' | 'key'; name: string } {
  return 'token' in parent
    ? { id: parent.tokenId, kind: 'session', name: `the session of ${parent.username}` }
    : { id: parent.id, kind: 'key', name: nameOf(parent) }
}

type Submit = SubmitEvent & { currentTarget: HTMLFormElement }

function DelegationForm({ keys, parent }: Pick<Props, 'keys' | 'parent'>) {
  const [problem, setProblem] = useState<string | null>(null)
  async function submit(event: Submit): Promise<void> {
    event.preventDefault()
    const fields = new FormData(event.currentTarget)
    const uses = fieldOf(fields, 'uses')
    const problem = await keys.delegate(parent, {
      name: fieldOf(fields, 'name'),
      scope: fieldOf(fields, 'scope'),
      ttlSeconds: Number(fieldOf(fields, 'ttlSeconds')),
      uses: uses === '' ? null : Number(uses),
    })
    setProblem(problem)
    if (problem === null) keys.openForm(null)
  }
  return html`
    <form class="fields" onSubmit=${submit}>
      <label>Who acts <input name="name" maxlength="64" autocomplete="off" autocapitalize="none" placeholder="agent" required /></label>
      <label>Lives for, in seconds <input name="ttlSeconds" type="number" min="1" defaultValue=${defaultTtlSeconds} required /></label>
      <label>Scope (optional) <input name="scope" autocomplete="off" autocapitalize="none" spellcheck=${false} placeholder="orders:read" /></label>
      <label>Uses (optional) <input name="uses" type="number" min="1" max="1000000000" /></label>
      <div class="row"><button class="main">Delegate the token</button></div>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    </form>
  `
}

type RowProps = Pick<Props, 'keys' | 'canGetData'>

/** `parentKind` is what the tokens were delegated from. */
export function delegatedList(
  delegated: Key[],
  label: string,
  parentKind: 'session' | 'key',
  props: RowProps,
): ComponentChildren {
  return html`<ul class="delegated" aria-label=${label}>
    ${delegated.map(key => row(key, parentKind, props))}
  </ul>`
}

function row(key: Key, parentKind: 'session' | 'key', { keys, canGetData }: RowProps): ComponentChildren {
  const { id, scope, usesLeft, lastStatus, isBusy, secret, paused } = key
  const name = nameOf(key)
  const standing = keys.standingOf(key)
  const limits = [
    scope !== null && `scope ${scope || 'none'}`,
    usesLeft !== null && `${counted(usesLeft, 'use')} left`,
  ].filter(Boolean)
  return html`
    <li key=${id} class=${standing} data-token=${id} data-standing=${standing}>
      ${ring({ ...ringOf(key, standing), label: `Delegated token ${name}`, isSmall: true })}
      <div class="about">
        <p><b>${name}</b> <span class="badge">${standing}</span> ${limits.length > 0 && html`<span class="quiet">${limits.join(' · ')}</span>`}</p>
        <p class="quiet">${explain(key, standing, parentKind)}</p>
        ${lastStatus !== null && lastAnswer(key)}
      </div>
      <div class="row">
        ${secret !== null && html`<button aria-label=${`Get data with ${name}`} disabled=${isBusy || !canGetData} onClick=${() => keys.getData(key)}>Get data</button>`}
        ${pauseAndEnd(key, paused, keys)}
      </div>
    </li>
  `
}

/** The buttons of a key or a delegated token that change it, as a session of its user. */
export function pauseAndEnd(key: Key, paused: boolean, keys: Keys): ComponentChildren {
  const name = nameOf(key)
  const session = keys.sessionOf(key.username)
  const standing = keys.standingOf(key)
  if (standing !== 'live' && standing !== 'paused' && standing !== 'refused') {
    return html`<button aria-label=${`Remove ${name}`} onClick=${() => keys.remove(key.id)}>Remove</button>`
  }
  const pause = () => session && keys.setPaused(session, key, !paused)
  const end = () => session && keys.end(session, key)
  const verb = paused ? 'Resume' : 'Pause'
  return html`
    <button aria-label=${`${verb} ${name}`} disabled=${session === null} onClick=${pause}>${verb}</button>
    <button aria-label=${`End ${name}`} disabled=${session === null} onClick=${end}>End</button>
  `
}

/** What the last request with the token was answered. */
export function lastAnswer({ lastStatus, message }: Key): ComponentChildren {
  const status = lastStatus === 0 ? 'no answer' : lastStatus
  return html`<p class="said"><span class=${`status ${lastStatus === 200 ? 'good' : 'bad'}`}>${status}</span> ${message}</p>`
}

function explain({ end, paused, useCount, lastStatus }: Key, standing: Standing, parentKind: string): string {
  const next = lastStatus === 401 ? '' : ' The very next request is refused. Try it.'
  if (standing === 'live') return `used ${times(useCount)}`
  if (standing === 'paused')
    return paused ? 'Refused until it is resumed.' : `Paused with its ${parentKind}, and resumed with it.`
  if (standing === 'refused') return `It or its ${parentKind} was ended, is paused, or had expired.`
  if (standing === 'used up') return `It has no uses left.${next}`
  if (standing === 'expired') return `Its time is over.${next}`
  return `${end === null ? `It ended with its ${parentKind}.` : 'It was ended.'}${next}`
}
