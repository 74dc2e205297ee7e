// The list of what was sent: what became of each, its problem document, and a button that copies it as a curl command.
import { copy, html, shownMs } from './ui.js'

/** @typedef {import('./exchanges.js').Exchange} Exchange */

/** @type {Map<number, 'copied' | 'shown'>} What became of the last press. */
const pressed = new Map()

/** @param {{ list: Exchange[], draw: () => void }} of */
export function exchangeList({ list, draw }) {
  return html`
    <section class="panel" aria-labelledby="sent-title">
      <h2 id="sent-title">What was sent</h2>
      ${
        list.length === 0
          ? html`<p class="quiet">Nothing yet. Each request appears here, with a button that copies it for a shell.</p>`
          : html`<ol class="sent">
              ${list.map(exchange => entry(exchange, draw))}
            </ol>`
      }
    </section>
  `
}

/** @param {Exchange} exchange @param {() => void} draw */
function entry(exchange, draw) {
  const { id, asked, durationMs, status, problem, timing, curl } = exchange
  const outcome = durationMs === null ? 'under way' : status === 0 ? 'no answer' : String(status)
  return html`
    <li key=${id}>
      <span class=${`status ${problem ? 'bad' : durationMs === null ? '' : 'good'}`}>${outcome}</span>
      <span class="asked"><b>${asked.title}</b> <code>${asked.method} ${new URL(asked.url, document.baseURI).pathname}</code></span>
      <span class="took">
        ${durationMs !== null && shownMs(durationMs)}
        ${timing && html`<span class="quiet"> · Auth ${shownMs(timing.authMs)}, ${timing.shared === 1 ? 'alone' : `shared by ${timing.shared}`}</span>`}
      </span>
      ${copyButton({ id, text: curl, label: 'Copy as curl', what: asked.title, draw })}
      ${
        problem &&
        html`<details>
          <summary>${problem.detail}</summary>
          <pre>${JSON.stringify(exchange.body ?? problem, null, 2)}</pre>
        </details>`
      }
    </li>
  `
}

/**
 * Where the browser lets nothing be copied, the text is shown instead.
 * @param {{ id: number, text: string, label: string, what: string, draw: () => void }} of
 */
export function copyButton({ id, text, label, what, draw }) {
  const press = async () => {
    pressed.set(id, (await copy(text)) ? 'copied' : 'shown')
    draw()
    setTimeout(() => {
      if (pressed.get(id) === 'copied') pressed.delete(id)
      draw()
    }, 1500)
  }
  return html`
    <button type="button" class="plain copy" onClick=${press} aria-label=${`${label}: ${what}`}>
      ${pressed.get(id) === 'copied' ? 'Copied' : label}
    </button>
    ${pressed.get(id) === 'shown' && html`<pre class="shown" tabindex="0">${text}</pre>`}
  `
}
