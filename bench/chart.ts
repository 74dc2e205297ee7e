// A bar chart as an SVG that is legible on light and dark backgrounds.

export interface Bar {
  label: string
  value: number
  /** Drawn in the accent colour. */
  ours: boolean
}

export function barChart(title: string, note: string, bars: Bar[]): string {
  const [left, width, row, top] = [290, 400, 26, 64]
  const maxValue = Math.max(...bars.map(({ value }) => value))
  const height = top + bars.length * row + 20
  const rows = bars.map(({ label, value, ours }, i) => {
    const y = top + i * row
    const length = Math.round((value / maxValue) * width)
    return `  <text x="${left - 10}" y="${y + 14}" text-anchor="end"${ours ? ' font-weight="bold"' : ''}>${escapeXml(label)}</text>
  <rect x="${left}" y="${y}" width="${length}" height="18" rx="2" fill="${ours ? '#0a7d5a' : '#8a94a6'}"/>
  <text x="${left + length + 8}" y="${y + 14}">${Math.round(value).toLocaleString('en')}</text>`
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" width="780" height="${height}" viewBox="0 0 780 ${height}" role="img">
  <title>${escapeXml(title)}</title>
  <style>text { font: 13px system-ui, sans-serif; fill: #5b6472 } .title { font-size: 16px; font-weight: bold }</style>
  <text class="title" x="10" y="24">${escapeXml(title)}</text>
  <text x="10" y="44">${escapeXml(note)}</text>
${rows.join('\n')}
</svg>
`
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}
