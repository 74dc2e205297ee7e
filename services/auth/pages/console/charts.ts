// Small moving charts: a number, and below it the last minute as a line.
import type { ComponentChildren } from 'preact'
import { formatNumber, html } from './ui.ts'

const [width, height] = [120, 36]
const points = 60

/** The style of each line: its dashes distinguish it without colour. */
const dashes = ['whole', 'dashed', 'dotted']

export interface ChartOptions {
  title: string
  /** The current value with its unit. */
  now: string
  /** One value per second, the oldest first. The second line is drawn fainter, unless there are `kinds`. */
  lines: (number | null)[][]
  /** The names of the lines, if `now` is their sum. Each line then has its own dashes, and its latest value below the chart. */
  kinds?: readonly string[]
  about: string
}

export function chart({ title, now, lines, kinds, about }: ChartOptions): ComponentChildren {
  const max = Math.max(0, ...lines.flat().map(value => value ?? 0))
  const peak = `${formatNumber(max)}${kinds ? ' of one kind' : ''}`
  const classes = kinds ? dashes : ['first', 'second']
  return html`
    <li class="chart">
      <h3>${title}</h3>
      <p class="figure">${now}</p>
      <svg viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label=${`${title} over the last minute: now ${now}, at most ${peak}. ${about}`}>
        <line x1="0" y1=${height - 1} x2=${width} y2=${height - 1} />
        ${lines.map((values, i) => html`<path class=${classes[i]} d=${pathOf(values, max)} />`)}
      </svg>
      ${
        kinds &&
        html`<ul class="kinds">
          ${kinds.map(
            (kind, i) => html`<li>
              <svg viewBox="0 0 24 4" aria-hidden="true"><path class=${classes[i]} d="M0 2H24" /></svg>${' '}
              ${formatNumber(lines[i]?.at(-1))} ${kind}
            </li>`,
          )}
        </ul>`
      }
      <p class="quiet">${about} <span class="max">max ${peak}</span></p>
    </li>
  `
}

function pathOf(values: (number | null)[], max: number): string {
  const step = width / (points - 1)
  let isDown = false
  return values
    .map((value, i) => {
      if (value === null) {
        isDown = false
        return ''
      }
      const x = width - (values.length - 1 - i) * step
      const y = height - 2 - (value / (max || 1)) * (height - 5)
      const command = isDown ? 'L' : 'M'
      // A value is drawn as a dot if the seconds before and after it have none.
      const dot = !isDown && (values[i + 1] ?? null) === null ? `h${step / 2}` : ''
      isDown = true
      return `${command}${x.toFixed(1)} ${y.toFixed(1)}${dot}`
    })
    .join('')
}
