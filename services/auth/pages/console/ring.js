// A ring that drains over a token's time to live.
import { html } from './ui.js'

const radius = 42
const length = 2 * Math.PI * radius

/**
 * @param {object} of
 * @param {number} of.leftMs
 * @param {number} of.wholeMs
 * @param {boolean} of.isLive
 * @param {string} of.label What it is the time of.
 * @param {boolean} [of.isSmall] Without the number in it.
 */
export function ring({ leftMs, wholeMs, isLive, label, isSmall = false }) {
  const share = isLive ? Math.max(0, Math.min(1, leftMs / wholeMs)) : 0
  const seconds = Math.ceil(leftMs / 1000)
  const text = isLive ? `${shownSeconds(seconds)} left` : 'dead'
  return html`
    <svg
      class=${`ring ${isLive ? (share < 0.25 ? 'low' : '') : 'dead'} ${isSmall ? 'small' : ''}`}
      viewBox="0 0 100 100"
      role="timer"
      aria-label=${`${label}: ${text}`}
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
        html`<text class="seconds" x="50" y="53">${isLive ? shortSeconds(seconds) : '–'}</text>
          <text class="unit" x="50" y="69">${isLive ? unitOf(seconds) : 'dead'}</text>`
      }
    </svg>
  `
}

/** @param {number} seconds */
function unitOf(seconds) {
  return seconds < 100 ? 'seconds' : seconds < 6000 ? 'minutes' : 'hours'
}

/** @param {number} seconds */
function shortSeconds(seconds) {
  return seconds < 100 ? seconds : Math.round(seconds < 6000 ? seconds / 60 : seconds / 3600)
}

/** @param {number} seconds */
function shownSeconds(seconds) {
  return `${shortSeconds(seconds)} ${unitOf(seconds)}`
}
