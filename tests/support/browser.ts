// Debian's Chromium with an empty profile, driven by playwright-core, which downloads no browser. Hides how the
// browser is started.
import { existsSync, readFileSync } from 'node:fs'
import { type Browser, chromium, type Page } from 'playwright-core'

/** The headless shell first: it makes no window for each page, and so takes half the CPU time. */
const path = [
  '/usr/bin/chromium-headless-shell',
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
].find(existsSync)

export const hasBrowser = path !== undefined

/** Prints why a suite is skipped; the caller calls `this.skip()`. */
export function reportMissingBrowser(what: string): void {
  console.log(`  not tested: ${what}, because neither chromium-headless-shell nor chromium is installed`)
}

export function openBrowser(): Promise<Browser> {
  return chromium.launch({
    ...(path !== undefined && { executablePath: path }),
    args: [
      '--headless',
      '--no-sandbox', // Chromium has no sandbox as root
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
}

/** What axe finds wrong for users of screen readers and keyboards, and where. */
export async function violationsOf(page: Page): Promise<string[]> {
  await page.evaluate(readFileSync('node_modules/axe-core/axe.min.js', 'utf8'))
  const found = await page.evaluate<{ id: string; nodes: { html: string }[] }[]>(
    'axe.run().then(({ violations }) => violations)',
  )
  return found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(', ')}`)
}
