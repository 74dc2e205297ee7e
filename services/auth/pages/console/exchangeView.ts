// The list of sent requests: the outcome of each, its problem document, and a button that copies it as a curl command.
import { type ComponentChildren, h } from 'preact'
import { useState } from 'preact/hooks'
import type { Exchange } from './exchanges.ts'
import { copy, formatMs, html } from './ui.ts'

const copiedForMs = 1500

export function exchangeList(list: Exchange[]): ComponentChildren {
  return html`
    <section class="panel" aria-labelledby="sent-title">
      <h2 id="sent-title">What was sent</h2>
      ${
        list.length === 0
          ? html`<p class="quiet">Nothing yet. Each request appears here, with a button that copies it as a curl command.</p>`
          : html`<ol class="sent">
              ${list.map(entry)}
            </ol>`
      }
    </section>
  `
}

function entry({ id, request, durationMs, status, body, problem, timing, curl }: Exchange): ComponentChildren {
  const outcome = status !== 0 ? String(status) : durationMs === null ? 'pending' : 'no answer'
  return html`
    <li key=${id}>
      <span class=${`status ${problem ? 'bad' : outcome === 'pending' ? '' : 'good'}`}>${outcome}</span>
      <span class="asked"><b>${request.title}</b> <code>${request.method} ${new URL(request.url, document.baseURI).pathname}</code></span>
      <span class="took">
        ${durationMs !== null ? formatMs(durationMs) : status !== 0 && 'still open'}
        ${timing && html`<span class="quiet"> · Auth ${formatMs(timing.authMs)}, ${timing.shared === 1 ? 'alone' : `shared by ${timing.shared}`}</span>`}
      </span>
      ${h(CopyButton, { text: curl, label: 'Copy as curl', subject: request.title })}
      ${
        problem &&
        html`<details>
          <summary>${problem.detail}</summary>
          <pre>${JSON.stringify(body ?? problem, null, 2)}</pre>
        </details>`
      }
    </li>
  `
}

/** Copies `text`, or shows it if the browser does not let this page write to the clipboard. */
export function CopyButton({ text, label, subject }: { text: string; label: string; subject: string }) {
  const [result, setResult] = useState<'copied' | 'shown' | null>(null)
  const press = async () => {
    const isCopied = await copy(text)
    setResult(isCopied ? 'copied' : 'shown')
    if (isCopied) setTimeout(() => setResult(result => (result === 'copied' ? null : result)), copiedForMs)
  }
  return html`
    <button type="button" class="plain copy" onClick=${press} aria-label=${`${label}: ${subject}`}>
      ${result === 'copied' ? 'Copied' : label}
    </button>
    ${result === 'shown' && html`<pre class="shown" tabindex="0">${text}</pre>`}
  `
}
