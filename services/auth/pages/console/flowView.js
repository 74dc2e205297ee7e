// The six steps, lit as requests take them, with the time that a request took; and the calls of a burst with their requests.
import { saidOfBurst } from './sessions.js'
import { counted, html, shownMs } from './ui.js'

/** @typedef {import('./exchanges.js').Exchange} Exchange */
/** @typedef {import('./sessions.js').Burst} Burst */

/** What each step is, and where its arrow runs. */
const steps = [
  { what: 'username and password', from: [104, 118], to: [290, 36], mark: [178, 72] },
  { what: 'a token', from: [290, 60], to: [104, 142], mark: [216, 106] },
  { what: 'the token', from: [104, 158], to: [290, 240], mark: [216, 194] },
  { what: 'is it good?', from: [322, 218], to: [322, 82], mark: [322, 150] },
  { what: 'a verdict', from: [358, 82], to: [358, 218], mark: [358, 150] },
  { what: 'data, or a refusal', from: [290, 264], to: [104, 182], mark: [178, 228] },
]
const between = [
  'client → Auth',
  'Auth → client',
  'client → Business',
  'Business → Auth',
  'Auth → Business',
  'Business → client',
]

/** @param {{ shown: Exchange | null, burst: Burst | null }} of */
export function flowPanel({ shown, burst }) {
  const lit = litSteps(shown)
  const isOver = shown !== null && shown.durationMs !== null
  return html`
    <section class="panel flow" aria-labelledby="flow-title">
      <h2 id="flow-title">The six steps</h2>
      <div class="picture">
        <svg viewBox="0 0 400 300" role="img" aria-label="Client, Auth and Business, and the six steps between them; the list beside says which were taken last.">
          <defs>
            <marker id="tip" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
              <path d="M0 1 9 5 0 9z" fill="context-stroke" />
            </marker>
          </defs>
          <g key=${`arrows ${shown?.id ?? 0} ${isOver}`}>
            ${steps.map(
              ({ from, to, mark }, i) => html`
                <g class=${`step ${lit.has(i + 1) ? `lit after${lit.get(i + 1)}` : ''}`}>
                  <line x1=${from[0]} y1=${from[1]} x2=${to[0]} y2=${to[1]} marker-end="url(#tip)" />
                  <circle cx=${mark[0]} cy=${mark[1]} r="11" />
                  <text x=${mark[0]} y=${mark[1]}>${i + 1}</text>
                </g>
              `,
            )}
          </g>
          ${node('client', 8, 112, 96, 76)}
          ${node('Auth', 290, 18, 100, 64)}
          ${node('Business', 290, 218, 100, 64)}
        </svg>
        <ol class="steps">
          ${steps.map(
            ({ what }, i) => html`
              <li class=${lit.has(i + 1) ? 'lit' : ''}><span>${between[i]}</span> <b>${what}</b></li>
            `,
          )}
        </ol>
      </div>
      ${shown ? timeline(shown) : html`<p class="quiet">Log in, then get data: the steps light up as each request passes.</p>`}
      ${burst && burstPicture(burst)}
    </section>
  `
}

/** @param {string} name @param {number} x @param {number} y @param {number} width @param {number} height */
function node(name, x, y, width, height) {
  return html`<g class="node">
    <rect x=${x} y=${y} width=${width} height=${height} rx="12" />
    <text x=${x + width / 2} y=${y + height / 2}>${name}</text>
  </g>`
}

/**
 * Step -> its place in the order of lighting.
 * @param {Exchange | null} shown
 */
function litSteps(shown) {
  /** @type {Map<number, number>} */
  const lit = new Map()
  for (const [order, step] of (shown ? stepsTaken(shown) : []).entries()) lit.set(step, order)
  return lit
}

/**
 * The steps that this request has certainly taken, in order. A request that is under way or got no answer was sent, and no
 * more is known of it.
 * @param {Exchange} exchange
 */
function stepsTaken({ asked, durationMs, status }) {
  if (!asked.flow) return []
  if (durationMs === null || status === 0) return [asked.flow]
  if (asked.flow === 1) return status === 200 ? [1, 2] : [1]
  // Business had a verdict before it answered with data, with 401, or with 429 for too many dead tokens. Any other answer may
  // have come without asking Auth, or without hearing from it.
  return [200, 401, 429].includes(status) ? [3, 4, 5, 6] : [3, 6]
}

/** @param {Exchange} exchange */
function timeline({ asked, durationMs, status, timing }) {
  if (durationMs === null) return html`<p class="timing">${asked.title}: under way …</p>`
  const authMs = timing?.authMs ?? 0
  const share = Math.min(1, authMs / durationMs) * 100
  return html`
    <div class="timing">
      <p>
        <b>${asked.title}</b>: ${status === 0 ? 'no answer' : status} after <b>${shownMs(durationMs)}</b>${
          timing &&
          html`, of which Auth took <b>${shownMs(authMs)}</b> in a call that ${
            timing.shared === 1 ? 'nobody else shared' : `${timing.shared} requests shared`
          }`
        }.
      </p>
      ${
        timing &&
        html`<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
          <rect class="whole" width="100" height="4" />
          <rect class="part" x=${(100 - share) / 2} width=${share} height="4" />
        </svg>`
      }
    </div>
  `
}

/** @param {Burst} burst */
function burstPicture(burst) {
  const { requests, answered, calls, durationMs, isDone } = burst
  const sizes = [...calls.values()]
  return html`
    <div class="burst" data-done=${isDone}>
      <h3>A burst of ${requests}</h3>
      <p class="sum">
        ${isDone ? html`<b>${saidOfBurst(burst)}</b> <span class="quiet">All in ${shownMs(durationMs)}.</span>` : `${answered} of ${requests} answered …`}
      </p>
      <div class="calls" role="img" aria-label=${`${counted(sizes.length, 'call')}, each drawn with the requests that shared it`}>
        ${sizes.map(size => html`<span title=${`${counted(size, 'request')} in one call`}>${Array.from({ length: size }, () => html`<i />`)}</span>`)}
      </div>
      <details class="quiet">
        <summary>Why not one call for all?</summary>
        <p>
          A browser opens six connections to one host, so about six of these requests can wait at the same time. What a
          service sees has no such bound: with 64 connections some forty requests share a call. “Copy as curl” sends the
          same burst over 200 connections and counts who shared with whom.
        </p>
      </details>
    </div>
  `
}
