// The picture of the six steps, which light up as requests take them, and the duration of the last request. Below it, the
// calls that the requests of a burst shared.
import type { ComponentChildren } from 'preact'
import type { Exchange } from './exchanges.ts'
import { type Burst, summaryOf } from './sessions.ts'
import { counted, formatMs, html } from './ui.ts'

interface Step {
  what: string
  between: string
  from: [x: number, y: number]
  to: [x: number, y: number]
  /** Where the number is drawn. */
  mark: [x: number, y: number]
}

const steps: Step[] = [
  { what: 'username and password', between: 'client → Auth', from: [104, 118], to: [290, 36], mark: [178, 72] },
  { what: 'a token', between: 'Auth → client', from: [290, 60], to: [104, 142], mark: [216, 106] },
  { what: 'the token', between: 'client → Business', from: [104, 158], to: [290, 240], mark: [216, 194] },
  { what: 'is it valid?', between: 'Business → Auth', from: [322, 218], to: [322, 82], mark: [322, 150] },
  { what: 'a verdict', between: 'Auth → Business', from: [358, 82], to: [358, 218], mark: [358, 150] },
  { what: 'data, or a refusal', between: 'Business → client', from: [290, 264], to: [104, 182], mark: [178, 228] },
]

/** `exchange` is the last one that belongs in the picture. */
export function flowPanel(exchange: Exchange | null, burst: Burst | null): ComponentChildren {
  const taken = exchange ? stepsTaken(exchange) : []
  const orderOf = (index: number) => taken.indexOf(index + 1)
  const isLit = (index: number) => taken.includes(index + 1)
  const isOver = exchange !== null && exchange.durationMs !== null
  return html`
    <section class="panel flow" aria-labelledby="flow-title">
      <h2 id="flow-title">The six steps</h2>
      <div class="picture">
        <svg viewBox="0 0 400 300" role="img" aria-label="Client, Auth and Business, and the six steps between them. The list next to it shows which of them the last request took.">
          <defs>
            <marker id="tip" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
              <path d="M0 1 9 5 0 9z" fill="context-stroke" />
            </marker>
          </defs>
          <g key=${`arrows ${exchange?.id ?? 0} ${isOver}`}>
            ${steps.map(
              ({ from, to, mark }, i) => html`
                <g class=${`step ${isLit(i) ? `lit after${orderOf(i)}` : ''}`}>
                  <line x1=${from[0]} y1=${from[1]} x2=${to[0]} y2=${to[1]} marker-end="url(#tip)" />
                  <circle cx=${mark[0]} cy=${mark[1]} r="11" />
                  <text x=${mark[0]} y=${mark[1]}>${i + 1}</text>
                </g>
              `,
            )}
          </g>
          ${box('client', 8, 112, 96, 76)}
          ${box('Auth', 290, 18, 100, 64)}
          ${box('Business', 290, 218, 100, 64)}
        </svg>
        <ol class="steps">
          ${steps.map(
            ({ what, between }, i) => html`
              <li class=${isLit(i) ? 'lit' : ''}><span>${between}</span> <b>${what}</b></li>
            `,
          )}
        </ol>
      </div>
      ${exchange ? timeline(exchange) : html`<p class="quiet">Log in, then get data: the steps light up as each request passes.</p>`}
      ${burst && burstPicture(burst)}
    </section>
  `
}

function box(name: string, x: number, y: number, width: number, height: number): ComponentChildren {
  return html`<g class="node">
    <rect x=${x} y=${y} width=${width} height=${height} rx="12" />
    <text x=${x + width / 2} y=${y + height / 2}>${name}</text>
  </g>`
}

/** The steps that this request has certainly taken, in order. Without an answer, that is only the first. */
function stepsTaken({ request, durationMs, status, timing }: Exchange): number[] {
  if (!request.flow) return []
  if (durationMs === null || status === 0) return [request.flow]
  if (request.flow === 1) return status === 200 ? [1, 2] : [1]
  // Business had a verdict before it answered with data, with 401, or with 429 for too many invalid tokens. Before any other
  // answer it may not have asked Auth, or may have got no answer from Auth.
  return timing !== null || [200, 401, 429].includes(status) ? [3, 4, 5, 6] : [3, 6]
}

function timeline({ request, durationMs, status, timing }: Exchange): ComponentChildren {
  if (durationMs === null) return html`<p class="timing">${request.title}: pending …</p>`
  const authMs = timing?.authMs ?? 0
  const share = Math.min(1, authMs / durationMs) * 100
  return html`
    <div class="timing">
      <p>
        <b>${request.title}</b>: ${status === 0 ? 'no answer' : status} after <b>${formatMs(durationMs)}</b>${
          timing &&
          html`, of which Auth took <b>${formatMs(authMs)}</b> in a call ${
            timing.shared === 1 ? 'of its own' : `that ${timing.shared} requests shared`
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

function burstPicture(burst: Burst): ComponentChildren {
  const { requests, answered, calls, durationMs } = burst
  const sizes = [...calls.values()]
  return html`
    <div class="burst" data-done=${durationMs !== null}>
      <h3>A burst of ${requests}</h3>
      <p class="sum">
        ${durationMs === null ? `${answered} of ${requests} answered …` : html`<b>${summaryOf(burst)}</b> <span class="quiet">All in ${formatMs(durationMs)}.</span>`}
      </p>
      <div class="calls" role="img" aria-label=${`${counted(sizes.length, 'call')}, each drawn with the requests that shared it`}>
        ${sizes.map(size => html`<span title=${`${counted(size, 'request')} in one call`}>${Array.from({ length: size }, () => html`<i />`)}</span>`)}
      </div>
      <details class="quiet">
        <summary>Why not one call for all?</summary>
        <p>
          A browser opens six connections to one host, so about six of these requests can wait at the same time. A service
          has no such limit: with 64 connections, about forty requests share a call. “Copy as curl” sends the same burst over
          200 connections and counts the requests per call.
        </p>
      </details>
    </div>
  `
}
