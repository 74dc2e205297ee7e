// The page of /console on the internal listener. It asks for the admin key, and keeps it in memory only.
import { h } from 'preact'
import { useState } from 'preact/hooks'
import { useExchanges } from './exchanges.ts'
import { exchangeList } from './exchangeView.ts'
import { useFigures } from './figures.ts'
import { useLiveTokens } from './liveTokens.ts'
import { useWatchedKeys } from './operatorKeys.ts'
import { keyList } from './operatorKeyView.ts'
import { charts, eventLog, keyPanel, streamLine } from './operatorView.ts'
import { type Actions, type IssuedToken, IssuePanel, tokenList } from './tokenView.ts'
import { announce, counted, html, openPage, useTick } from './ui.ts'
import { type Send, useUser } from './user.ts'
import { useUserFilter } from './userFilter.ts'
import { userPanel } from './userView.ts'

function OperatorPage() {
  const [key, setKey] = useState<string | null>(null)
  const [problem, setProblem] = useState<string | null>(null)
  const leave = (why: string | null) => {
    setKey(null)
    setProblem(why)
  }
  return html`
    <a class="skip" href="#main">Skip to the tokens</a>
    <header class="top">
      <img src="console/icon.svg" alt="" width="32" height="32" />
      <div>
        <h1>Latchkey, the operator’s view</h1>
        <p>What Auth knows of its tokens, as it happens. Ids only: no secret is ever shown twice.</p>
      </div>
      <nav aria-label="Documents"><a href="docs">API</a></nav>
    </header>
    <main id="main" tabindex="-1">
      ${key === null ? keyPanel(problem, setKey) : h(LiveView, { adminKey: key, leave })}
    </main>
  `
}

/** Everything that needs the key. When this view is no longer drawn, its state and the key in its closures are gone. */
function LiveView({ adminKey, leave }: { adminKey: string; leave: (why: string | null) => void }) {
  const exchanges = useExchanges(() => 'No answer from Auth.')
  const send: Send = (method, url, title, body) =>
    exchanges.send({ title, method, url, key: adminKey, ...(body !== undefined && { body }) })
  const user = useUser(send)
  const keys = useWatchedKeys(send)
  const live = useLiveTokens({
    adminKey,
    onEvent(event) {
      user.apply(event)
      keys.apply(event)
    },
    send: exchanges.sendUnlisted,
    onRefused: () => leave('This is not the admin key.'),
  })
  const samples = useFigures()
  const filter = useUserFilter(live)
  const { tokens, stream } = live
  useTick(() => tokens.tick(filter))
  const actions = actionsWith(send)
  return html`
    ${streamLine(stream, tokens.dropped, () => leave(null))}
    ${charts(samples)}
    <div class="columns operator">
      <div class="aside">${userPanel(user)} ${h(IssuePanel, { actions })}</div>
      <div class="wide">
        ${tokenList(tokens, filter, actions)}
        ${keyList(keys, tokens.nameOf)}
        ${eventLog(tokens)}
        ${exchangeList(exchanges.list)}
      </div>
    </div>
  `
}

function actionsWith(send: Send): Actions {
  /** Undefined if there is no user with this name. */
  async function findUser(username: string): Promise<string | undefined> {
    const url = `admin/users?username=${encodeURIComponent(username)}`
    const { body, status } = await send('GET', url, `Find ${username}`)
    return status === 200 ? (body as { users: { id: string }[] }).users[0]?.id : undefined
  }

  return {
    async sweep() {
      const { status, body } = await send('DELETE', 'tokens/expired', 'Sweep now')
      if (status === 200) announce(`${counted((body as { removed: number }).removed, 'token')} removed.`)
    },

    async endToken(id) {
      const { status } = await send('DELETE', `tokens/${id}`, 'End a token')
      announce(status === 204 ? 'The token has ended.' : 'The token could not be ended.')
    },

    async pauseToken(id, paused) {
      const { status } = await send('PATCH', `tokens/${id}`, paused ? 'Pause a token' : 'Resume a token', { paused })
      const outcome = paused ? 'is paused' : 'works again'
      announce(status === 200 ? `The token ${outcome}.` : 'The token could not be changed.')
    },

    async endAllOf(id, name) {
      const { status } = await send('DELETE', `admin/users/${encodeURIComponent(id)}/sessions`, `End all of ${name}`)
      announce(status === 204 ? `Every token of ${name} has ended.` : `The tokens of ${name} could not be ended.`)
    },

    async issue({ kind, ttlSeconds, username, scope }) {
      const userId = username === '' ? null : await findUser(username)
      if (userId === undefined) return 'There is no such user.'
      const terms = { kind, ttlSeconds, ...(userId !== null && { userId }), ...(scope !== '' && { scope }) }
      const { status, body, problem } = await send('POST', 'tokens', `Issue a ${kind} token`, terms)
      if (status !== 201) return problem?.detail ?? 'The token could not be issued.'
      announce('Issued.')
      return body as IssuedToken
    },

    async validate(token) {
      const { body, problem } = await send('POST', 'validateToken', 'Validate a token', { token })
      const isAdmitted = (body as { authenticated?: boolean } | null)?.authenticated
      announce(problem?.detail ?? (isAdmitted ? 'It is admitted.' : 'It is refused.'))
    },
  }
}

openPage(h(OperatorPage, null))
