// A ring that drains over a token's time to live.
import type { ComponentChildren } from 'preact'
import { html } from './ui.ts'

const radius = 42
const length = 2 * Math.PI * radius

export interface RingOptions {
  leftMs: number
  /** The time to live of a token that was just issued or extended. */
  wholeMs: number
  isLive: boolean
  /** Read by screen readers. */
  label: string
  /** Omits the number inside the ring. */
  isSmall?: boolean
}

export function ring({ leftMs, wholeMs, isLive, label, isSmall = false }: RingOptions): ComponentChildren {
  const share = isLive ? Math.max(0, Math.min(1, leftMs / wholeMs)) : 0
  const seconds = Math.ceil(leftMs / 1000)
  const [amount, unit] = durationOf(seconds)
  return html`
    <svg
      class=${`ring ${isLive ? (share < 0.25 ? 'low' : '') : 'dead'} ${isSmall ? 'small' : ''}`}
      viewBox="0 0 100 100"
      role="timer"
      aria-label=${`${label}: ${isLive ? `${amount} ${unit} left` : 'dead'}`}
    >
      <circle class="track" cx="50" cy="50" r=${radius} />
      <circle
        class="left"
        cx="50"
        cy="50"
        r=${radius}
        transform="rotate(-90 50 50)"
        stroke-dasharray=${length}
        stroke-dashoffset=${(1 - share) * length}
      />
      ${
        !isSmall &&
        html`<text class="seconds" x="50" y="53">${isLive ? amount : '–'}</text>
          <text class="unit" x="50" y="69">${isLive ? unit : 'dead'}</text>`
      }
    </svg>
  `
}

function durationOf(seconds: number): [amount: number, unit: string] {
  if (seconds < 100) return [seconds, 'seconds']
  return seconds < 6000 ? [Math.round(seconds / 60), 'minutes'] : [Math.round(seconds / 3600), 'hours']
}
