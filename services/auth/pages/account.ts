// GET /account: the page that links in mails open. It contains no secret and does nothing by itself: the token follows
// the # of the link, which browsers do not send, and is submitted only when the user presses the button.
import { hash } from 'node:crypto'
import { staticText } from './static.ts'

const style = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 24rem; margin: 12vh auto; padding: 0 1.5rem; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25 }
input, button { font: inherit; box-sizing: border-box; width: 100%; padding: .6rem; margin: .25rem 0 1rem; border: 1px solid GrayText; border-radius: .4rem }
button { background: #1d4ed8; border-color: #1d4ed8; color: #fff; cursor: pointer }
button:disabled { opacity: .6; cursor: default }
:focus-visible { outline: 3px solid #93b4fd; outline-offset: 1px }
[hidden] { display: none }
`

// Paths are relative, because a proxy may serve Auth below a path.
const script = `
const [, purpose, token] = /^#(confirm|reset)=([A-Za-z0-9._~+/=-]+)$/.exec(location.hash) ?? []
const title = document.querySelector('h1')
const form = document.querySelector('form')
const said = document.querySelector('[role=status]')
const password = document.querySelector('input')
const button = document.querySelector('button')
if (purpose === 'reset') {
  title.textContent = 'Choose a new password'
  button.textContent = 'Set this password'
  form.hidden = false
} else if (purpose === 'confirm') {
  title.textContent = 'Confirm your address'
  document.querySelector('label').hidden = true
  password.disabled = true
  form.hidden = false
} else said.textContent = 'This address is not whole. Open the link in the mail, or copy all of it.'
form.addEventListener('submit', async event => {
  event.preventDefault()
  button.disabled = true
  said.textContent = ''
  const [path, body] = purpose === 'reset' ? ['password/reset', { token, password: password.value }] : ['users/confirm', { token }]
  try {
    const answer = await fetch(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
    form.hidden = answer.ok || answer.status === 401
    if (answer.ok) said.textContent = purpose === 'reset' ? 'Your password is changed. You can log in with it now.' : 'Your address is confirmed. You can log in now.'
    else if (answer.status === 401) said.textContent = 'This link is used up, too old, or replaced by a newer one. Ask for another.'
    else said.textContent = (await answer.json()).detail.replace(/^password: ./, start => start.slice(-1).toUpperCase())
  } catch {
    said.textContent = 'No answer. Try again.'
  }
  button.disabled = false
})
// Another link, opened in this tab, changes what is behind the # and loads nothing.
addEventListener('hashchange', () => location.reload())
`

const page = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Your account</title>
<style>${style}</style>
<h1>Your account</h1>
<form hidden>
<label>New password <input type="password" autocomplete="new-password" required></label>
<button>Confirm</button>
</form>
<p role="status"></p>
<noscript>This page needs JavaScript.</noscript>
<script type="module">${script}</script>
</html>
`

const allowed = (text: string) => `'sha256-${hash('sha256', text, 'base64')}'`
const policy = [
  "default-src 'none'",
  `script-src ${allowed(script)}`,
  `style-src ${allowed(style)}`,
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

export const accountPage = staticText(page, '.html', { 'Content-Security-Policy': policy })
