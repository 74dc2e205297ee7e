// Small moving charts: a number, and the minute before it as a line.
import { html } from './ui.js'

const [width, height] = [120, 36]
const points = 60

/** Told apart without colours, too. */
const dashes = ['whole', 'dashed', 'dotted']

/**
 * @param {object} of
 * @param {string} of.title
 * @param {string} of.now What it is at this moment, with its unit.
 * @param {(number | null)[][]} of.lines The oldest first; the second is drawn fainter.
 * @param {string[]} [of.kinds] What each line is of, where `now` is of all: each has its own dashes, and its number beneath.
 * @param {string} of.about
 */
export function chart({ title, now, lines, kinds, about }) {
  const most = Math.max(0, ...lines.flat().map(value => value ?? 0))
  const peak = `${shown(most)}${kinds ? ' of one kind' : ''}`
  const classes = kinds ? dashes : ['first', 'second']
  return html`
    <li class="chart">
      <h3>${title}</h3>
      <p class="figure">${now}</p>
      <svg viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label=${`${title} over the last minute: now ${now}, at most ${peak}. ${about}`}>
        <line x1="0" y1=${height - 1} x2=${width} y2=${height - 1} />
        ${lines.map((values, i) => html`<path class=${classes[i]} d=${pathOf(values, most)} />`)}
      </svg>
      ${
        kinds &&
        html`<ul class="kinds">
          ${kinds.map(
            (kind, i) => html`<li>
              <svg viewBox="0 0 24 4" aria-hidden="true"><path class=${classes[i]} d="M0 2H24" /></svg>${' '}
              ${shown(lines[i]?.at(-1))} ${kind}
            </li>`,
          )}
        </ul>`
      }
      <p class="quiet">${about} <span class="most">max ${peak}</span></p>
    </li>
  `
}

/** @param {(number | null)[]} values @param {number} most */
function pathOf(values, most) {
  const step = width / (points - 1)
  let isDown = false
  return values
    .map((value, i) => {
      if (value === null) {
        isDown = false
        return ''
      }
      const x = width - (values.length - 1 - i) * step
      const y = height - 2 - (value / (most || 1)) * (height - 5)
      const command = isDown ? 'L' : 'M'
      // A second between two silent ones is a dot.
      const dot = !isDown && (values[i + 1] ?? null) === null ? `h${step / 2}` : ''
      isDown = true
      return `${command}${x.toFixed(1)} ${y.toFixed(1)}${dot}`
    })
    .join('')
}

/** @param {number | null | undefined} value */
export function shown(value) {
  if (value === null || value === undefined) return '–'
  if (value >= 100) return Math.round(value).toLocaleString('en')
  return Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 2 : 1)
}
