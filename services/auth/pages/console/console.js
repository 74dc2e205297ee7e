// The page of /console put together: tokens of this browser, the way of their requests, and what was sent.
import { setClock } from './clock.ts'
import { createExchanges } from './exchanges.js'
import { exchangeList } from './exchangeView.js'
import { flowPanel } from './flowView.js'
import { createSessions } from './sessions.js'
import { logInPanel, sessionCards } from './sessionView.js'
import { html, openScreen, prefersStillness } from './ui.js'

const settings = await readSettings()
const { businessUrl, publicUrl, ttlMs } = settings

/** @returns {Promise<import('./sessions.js').Settings>} */
async function readSettings() {
  const startedAt = performance.now()
  const settings = await (await fetch('console/settings.json', { cache: 'no-store' })).json()
  setClock(settings.now, startedAt)
  return settings
}

// A machine that slept has another idea of how much time has passed.
document.addEventListener('visibilitychange', () => {
  if (document.visibilityState === 'visible') readSettings().catch(() => {})
})

/** @param {string} url */
function whyNoAnswer(url) {
  const isOfBusiness = businessUrl !== null && businessUrl !== '' && url.startsWith(businessUrl)
  if (!isOfBusiness) return 'No answer from Auth.'
  const why = `No answer from ${businessUrl}: it is not running, or its CORS_ORIGINS lack ${location.origin}.`
  return location.origin === new URL(publicUrl).origin ? why : `${why} Open ${publicUrl}/console.`
}

const exchanges = createExchanges({ onChange: () => draw(), whyNoAnswer })
const sessions = createSessions({ settings, exchanges, onChange: () => draw() })
const draw = openScreen(page)
// With reduced motion the rings step once a second, otherwise the style sheet makes one movement of the steps.
let tickedAt = 0
setInterval(() => {
  if (prefersStillness.matches && performance.now() - tickedAt < 990) return
  tickedAt = performance.now()
  sessions.tick()
}, 250)

function page() {
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
          This page does not know where Business is: <b>Get data</b> is off. Set <code>CONSOLE_BUSINESS_URL</code> of Auth to its
          address, and <code>CORS_ORIGINS</code> of Business to <code>${location.origin}</code>.
        </p>`
      }
      <div class="columns">
        <div class="aside">${logInPanel({ sessions, settings })}</div>
        <div class="wide">
          ${sessionCards({ sessions, settings })}
          ${flowPanel(sessions.state)}
          ${exchangeList({ list: exchanges.list, draw })}
        </div>
      </div>
    </main>
  `
}
