// What surrounds the tokens in the operator's view: the key, the state of the event stream, the charts, the events.
import type { ComponentChildren } from 'preact'
import { chart } from './charts.ts'
import type { StreamState } from './eventStream.ts'
import { kinds, type Sample } from './figures.ts'
import type { LoggedEvent, Tokens } from './tokens.ts'
import { fieldOf, formatNumber, html, shownRate, times } from './ui.ts'

export function keyPanel(problem: string | null, connect: (key: string) => void): ComponentChildren {
  const submit = (event: SubmitEvent & { currentTarget: HTMLFormElement }) => {
    event.preventDefault()
    connect(fieldOf(new FormData(event.currentTarget), 'key'))
  }
  return html`
    <section class="panel key" aria-labelledby="key-title">
      <h2 id="key-title">The admin key</h2>
      <form onSubmit=${submit}>
        <label>ADMIN_KEY <input name="key" type="password" autocomplete="off" spellcheck=${false} required /></label>
        <div class="row"><button class="main">Open the view</button></div>
      </form>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      <p class="quiet">In development the key is in the file <code>.env</code>. The page keeps it in memory only, until you close the page.</p>
    </section>
  `
}

export function streamLine(stream: StreamState, dropped: number, leave: () => void): ComponentChildren {
  return html`
    <div class="stream">
      <p role="status"><span class=${`badge ${stream.name === 'live' ? 'live' : 'refused'}`}>${stream.name}</span> ${describe(stream)}
        ${dropped > 0 && html` <span class="bad">${formatNumber(dropped)} events are not shown, because there were too many.</span>`}</p>
      <button type="button" onClick=${leave}>Forget the key</button>
    </div>
  `
}

function describe(stream: StreamState): string {
  if (stream.name === 'live') return 'Events are live.'
  if (stream.name !== 'waiting') return 'Connecting to the events …'
  return `The event stream was interrupted (${stream.reason}). Reconnecting in ${stream.seconds} s.`
}

export function charts(samples: Sample[]): ComponentChildren {
  const last = samples.at(-1)
  const line = (value: (sample: Sample) => number | null) => samples.map(value)
  const latest = (value: (sample: Sample) => number | null) => samples.map(value).findLast(v => v !== null)
  const sum = ({ tokens }: Sample) => Object.values(tokens).reduce((all, count) => all + count, 0)
  return html`
    <section aria-labelledby="figures-title">
      <h2 id="figures-title">The last minute</h2>
      <ul class="charts">
        ${chart({
          title: 'Tokens in the store',
          now: last ? formatNumber(sum(last)) : '–',
          lines: kinds.map(kind => line(s => s.tokens[kind])),
          kinds,
          about: 'Dead tokens count until they are swept.',
        })}
        ${chart({
          title: 'Log-ins per second',
          now: formatNumber(last?.logins),
          lines: [line(s => s.logins), line(s => s.failedLogins)],
          about: `${formatNumber(last?.failedLogins)} failed.`,
        })}
        ${chart({
          title: 'Verdicts per second',
          now: formatNumber(last?.admitted),
          lines: [line(s => s.admitted), line(s => s.refused)],
          about: `${formatNumber(last?.refused)} refused.`,
        })}
        ${chart({
          title: 'Verdicts per call',
          now: formatNumber(latest(s => s.batch)),
          lines: [line(s => s.batch)],
          about: 'Requests that shared one call.',
        })}
        ${chart({
          title: 'A call takes, p50',
          now: `${formatNumber(latest(s => s.p50))} ms`,
          lines: [line(s => s.p99), line(s => s.p50)],
          about: `p99 ${formatNumber(latest(s => s.p99))} ms, in Auth.`,
        })}
        ${chart({
          title: 'Swept',
          now: formatNumber(samples.reduce((all, { swept }) => all + (swept ?? 0), 0)),
          lines: [line(s => s.swept)],
          about: 'Dead tokens removed in this minute.',
        })}
      </ul>
    </section>
  `
}

export function eventLog({ log, nameOf }: Tokens): ComponentChildren {
  return html`
    <section class="panel" aria-labelledby="events-title">
      <h2 id="events-title">Events</h2>
      ${log.length === 0 && html`<p class="quiet">Nothing has happened since this page was opened.</p>`}
      <ol class="events" tabindex="0" aria-label="Events, the newest first">
        ${log.map(event => logEntry(event, nameOf))}
      </ol>
    </section>
  `
}

function logEntry({ id, name, data }: LoggedEvent, nameOf: Tokens['nameOf']): ComponentChildren {
  const tokenId = 'tokenId' in data ? data.tokenId : null
  const userId = 'userId' in data ? data.userId : null
  const kind = 'kind' in data && data.kind !== 'sliding' ? ` ${data.kind}` : ''
  const reason = 'reason' in data ? ` ${data.reason}` : ''
  const roles = 'roles' in data ? ` ${data.roles.join(', ') || 'none'}` : ''
  const terms = 'scope' in data && data.scope !== null ? ` scope ${data.scope}` : ''
  const rate = 'rate' in data ? ` ${data.rate ? shownRate(data.rate) : 'no rate'}` : ''
  const pause = 'paused' in data ? (data.paused ? ' paused' : ' not paused') : ''
  const removed = 'removed' in data ? ` ${formatNumber(data.removed)} removed in ${data.durationMs} ms` : ''
  const count = 'count' in data ? data.count : 1
  const title = 'name' in data && data.name !== null ? ` “${data.name}”` : ''
  const isAlarm = name === 'canary_used'
  const isBad = isAlarm || name === 'refused' || name === 'dropped' || name === 'login_failed'
  return html`
    <li key=${id} class=${isAlarm ? 'alarm' : ''}>
      <time>${'at' in data ? new Date(data.at).toLocaleTimeString('en-GB') : ''}</time>
      <b class=${isBad ? 'bad' : ''}>${name}</b>
      <span>
        ${tokenId && html`<code>${tokenId}</code> `}${nameOf(userId) ?? ''}
        ${title}${isAlarm && ` tried ${times(data.useCount)}`}${kind}${reason}${roles}${terms}${rate}${pause}${removed}
        ${count > 1 && html` <b>× ${formatNumber(count)}</b>`}
      </span>
    </li>
  `
}
