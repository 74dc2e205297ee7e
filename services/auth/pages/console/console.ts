// The page of /console: the sessions and keys of this browser, the steps that their requests take, and what was sent.
import { h } from 'preact'
import { useAdminData } from './adminData.ts'
import { setClock } from './clock.ts'
import { useExchanges } from './exchanges.ts'
import { exchangeList } from './exchangeView.ts'
import { flowPanel } from './flowView.ts'
import { useHeldConnections } from './heldConnections.ts'
import { useKeys } from './keys.ts'
import { KeySection } from './keyView.ts'
import { urlAt, useSessions } from './sessions.ts'
import { LogInPanel, SessionCards } from './sessionView.ts'
import type { ConsoleSettings } from './settings.ts'
import { html, openPage } from './ui.ts'

const settings = await readSettings()
const { businessUrl, publicUrl, ttlMs } = settings

async function readSettings(): Promise<ConsoleSettings> {
  const startedAt = performance.now()
  const settings = await (await fetch('console/settings.json', { cache: 'no-store' })).json()
  setClock(settings.now, startedAt)
  return settings
}

// `performance.now()` may not have counted the time during which the machine slept.
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') readSettings().catch(() => {})
})

function explainNoAnswer(url: string): string {
  if (!businessUrl || !url.startsWith(businessUrl)) return 'No answer from Auth.'
  const why = `No answer from ${businessUrl}: it is not running, or its CORS_ORIGINS lack ${location.origin}.`
  return location.origin === new URL(publicUrl).origin ? why : `${why} Open ${publicUrl}/console.`
}

function ConsolePage() {
  const exchanges = useExchanges(explainNoAnswer)
  const sessions = useSessions(settings, exchanges)
  const connections = useHeldConnections(urlAt(businessUrl, 'data/live'), exchanges, sessions)
  const adminData = useAdminData(urlAt(businessUrl, 'admin/data'), exchanges, sessions)
  const keys = useKeys(settings, exchanges, sessions)
  const inPicture = exchanges.list.find(({ request }) => request.flow !== undefined) ?? null
  return html`
    <a class="skip" href="#main">Skip to the sessions</a>
    <header class="top">
      <img src="console/icon.svg" alt="" width="32" height="32" />
      <div>
        <h1>Latchkey</h1>
        <p>A token lives ${Math.round(ttlMs / 1000)} seconds unless it is used. Every request asks Auth; nothing is cached.</p>
      </div>
      ${settings.hasApiDocs && html`<nav aria-label="Documents"><a href="docs">API</a> <a href="redoc">Reference</a></nav>`}
    </header>
    <main id="main" tabindex="-1">
      ${
        businessUrl === null &&
        html`<p class="notice" role="note">
          This page does not know the address of Business, so <b>Get data</b> is off. Set Auth’s
          <code>CONSOLE_BUSINESS_URL</code> to that address, and Business’s <code>CORS_ORIGINS</code> to
          <code>${location.origin}</code>.
        </p>`
      }
      <div class="columns">
        <div class="aside">${h(LogInPanel, { sessions, settings })}</div>
        <div class="wide">
          ${h(SessionCards, { sessions, connections, adminData, keys, settings })}
          ${h(KeySection, { keys, sessions, canGetData: businessUrl !== null })}
          ${flowPanel(inPicture, sessions.burst)}
          ${exchangeList(exchanges.list)}
        </div>
      </div>
    </main>
  `
}

openPage(h(ConsolePage, null))
