// A ring that drains over a token's time to live, and the rings of delegated tokens within it.
import type { ComponentChildren } from 'preact'
import { html } from './ui.ts'

const radius = 42
const maxInner = 3
const innerRadius = 33
const innerGap = 6

interface RingState {
  /** Null if the token never expires. */
  leftMs: number | null
  /** The time to live of a token that was just issued or extended. */
  wholeMs: number
  isLive: boolean
  /** Whether the token is refused until it is resumed. */
  isPaused?: boolean
}

export interface InnerRing extends RingState {
  id: string
}

export interface RingOptions extends RingState {
  /** Read by screen readers. */
  label: string
  /** Omits the number inside the ring. */
  isSmall?: boolean
  /** Only the first three are drawn, and screen readers skip them. */
  inner?: InnerRing[]
}

export function ring({ label, isSmall = false, inner = [], ...state }: RingOptions): ComponentChildren {
  const { leftMs, isLive, isPaused = false } = state
  const [amount, unit] = leftMs === null ? ['∞', 'no end'] : durationOf(leftMs)
  const standing = isPaused ? 'paused' : leftMs === null ? 'never expires' : `${amount} ${unit} left`
  const hasInner = inner.length > 0
  return html`
    <svg
      class=${`ring ${isLive ? '' : 'dead'} ${isSmall ? 'small' : ''} ${hasInner ? 'parent' : ''}`}
      viewBox="0 0 100 100"
      role="timer"
      aria-label=${`${label}: ${isLive ? standing : 'dead'}`}
    >
      ${circles(radius, state)}
      ${inner
        .slice(0, maxInner)
        .map(
          (of, i) =>
            html`<g key=${of.id} class=${`inner ${of.isLive ? '' : 'dead'}`}>${circles(innerRadius - i * innerGap, of)}</g>`,
        )}
      ${
        !isSmall &&
        html`<text class="seconds" x="50" y=${hasInner ? 51 : 53}>${isLive ? amount : '–'}</text>
          <text class="unit" x="50" y=${hasInner ? 61 : 69}>${isLive ? (isPaused ? 'paused' : unit) : 'dead'}</text>`
      }
    </svg>
  `
}

function circles(r: number, { leftMs, wholeMs, isLive, isPaused = false }: RingState): ComponentChildren {
  const share = !isLive ? 0 : leftMs === null ? 1 : Math.max(0, Math.min(1, leftMs / wholeMs))
  const length = 2 * Math.PI * r
  const look = isPaused ? 'paused' : isLive && share < 0.25 ? 'low' : ''
  return html`
    <circle class="track" cx="50" cy="50" r=${r} />
    <circle
      class=${`left ${look}`}
      cx="50"
      cy="50"
      r=${r}
      transform="rotate(-90 50 50)"
      stroke-dasharray=${length}
      stroke-dashoffset=${(1 - share) * length}
    />
  `
}

/** In the largest unit that is not too coarse. */
export function durationOf(ms: number): [amount: number, unit: string] {
  const seconds = Math.ceil(ms / 1000)
  if (seconds < 100) return [seconds, 'seconds']
  if (seconds < 6000) return [Math.round(seconds / 60), 'minutes']
  return seconds < 360_000 ? [Math.round(seconds / 3600), 'hours'] : [Math.round(seconds / 86_400), 'days']
}
