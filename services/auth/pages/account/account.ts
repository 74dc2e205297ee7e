// Reads the token from the link that opened the page and submits it when the user presses the button.

const [, purpose, token] = /^#(confirm|email|reset)=([A-Za-z0-9._~+/=-]+)$/.exec(location.hash) ?? []
const title = element('h1')
const form = element('form')
const label = element('label')
const password = element('input')
const button = element('button')
const message = element('p')

if (purpose === 'reset') {
  title.textContent = 'Choose a new password'
  button.textContent = 'Set this password'
  form.hidden = false
} else if (purpose !== undefined) {
  title.textContent = 'Confirm your address'
  label.hidden = true
  password.disabled = true
  form.hidden = false
} else message.textContent = 'This link is incomplete. Open the link in the mail again, or copy all of it.'

form.addEventListener('submit', async event => {
  event.preventDefault()
  button.disabled = true
  message.textContent = ''
  message.textContent = await submit().catch(() => 'No answer. Try again.')
  button.disabled = false
})

// Opening another link in this tab changes only the part after the #, so the browser would not load the page again.
addEventListener('hashchange', () => location.reload())

/** Resolves to the message for the user. Paths are relative, because a proxy may serve Auth below a path. */
async function submit(): Promise<string> {
  const paths = { reset: 'password/reset', confirm: 'users/confirm', email: 'users/confirm/email' }
  const path = paths[purpose as keyof typeof paths]
  const body = purpose === 'reset' ? { token, password: password.value } : { token }
  const headers = { 'content-type': 'application/json' }
  const answer = await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) })
  form.hidden = answer.ok || answer.status === 401
  if (answer.ok && purpose === 'reset') return 'Your password is changed. You can log in with it now.'
  if (answer.ok && purpose === 'email') return 'Your address is confirmed. Mails about your account go to it now.'
  if (answer.ok) return 'Your address is confirmed. You can log in now.'
  if (answer.status === 401)
    return 'This link was already used, has expired, or was replaced by a newer one. Request a new one.'
  const { detail }: { detail: string } = await answer.json()
  return detail.replace(/^password: ./, start => start.slice(-1).toUpperCase())
}

function element<Name extends keyof HTMLElementTagNameMap>(name: Name): HTMLElementTagNameMap[Name] {
  const found = document.querySelector(name)
  if (found === null) throw new Error(`the page has no <${name}>`)
  return found
}
