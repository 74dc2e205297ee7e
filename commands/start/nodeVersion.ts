// Which versions of Node.js have known security holes.
import { sep } from 'node:path'

/** The security releases of November 2026, by line. An older Node.js of the same line works, and has known holes. */
export const safeNodeVersions: Record<number, string> = { 22: '22.23.5', 24: '24.22.3', 26: '26.13.1' }

/**
 * Null if there is nothing to update. The one in `.node/` is not the user's to update: commands/runtime.sh fetches the newest
 * one that its registry has for every platform.
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
