// Warns about versions of Node.js with known security holes.
import { sep } from 'node:path'

/** The security releases of November 2026, by major version. Older versions work but have known holes. */
export const safeNodeVersions: Record<number, string> = { 22: '22.23.5', 24: '24.22.3', 26: '26.13.1' }

/**
 * Null if there is nothing to update. Never warns about the Node.js in `.node/`: commands/runtime.sh pins it to the newest
 * version that the registry has for every platform, so the user cannot update it.
 */
export function warningAboutNode(version: string, execPath: string): string | null {
  if (execPath.split(sep).includes('.node')) return null
  const numbers = (text: string) => text.split('.').map(Number) as [number, number, number]
  const [major, minor, patch] = numbers(version)
  const safe = safeNodeVersions[major]
  if (safe === undefined) return null
  const [, safeMinor, safePatch] = numbers(safe)
  if (minor > safeMinor || (minor === safeMinor && patch >= safePatch)) return null
  return `Warning: Node.js ${version} has known security holes. Update it to ${safe} or newer: https://nodejs.org`
}
