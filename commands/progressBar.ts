// A progress bar for terminals.
const width = 24

/** A bar and a percentage, always equally long. */
export function progressBar(fraction: number): string {
  const done = Math.min(1, Math.max(0, fraction))
  const full = Math.floor(done * width)
  return `[${'#'.repeat(full)}${'-'.repeat(width - full)}] ${String(Math.floor(done * 100)).padStart(3)} %`
}
