// The operator's panel for one user: gives and takes roles, limits how often, pauses and resumes.
import type { ComponentChildren } from 'preact'
import { fieldOf, html, shownRate } from './ui.ts'
import type { LookedUpUser, ShownUser } from './user.ts'

type Submit = SubmitEvent & { currentTarget: HTMLFormElement }

export function userPanel(user: LookedUpUser): ComponentChildren {
  const { shown, problem } = user
  const find = (event: Submit) => {
    event.preventDefault()
    void user.find(fieldOf(new FormData(event.currentTarget), 'name'))
  }
  return html`
    <section class="panel" aria-labelledby="user-title">
      <h2 id="user-title">A user</h2>
      <form onSubmit=${find}>
        <label>Name of the user <input name="name" autocomplete="off" autocapitalize="none" spellcheck=${false} required /></label>
        <div class="row"><button class="main">Find</button></div>
      </form>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
      ${shown && details(shown, user)}
    </section>
  `
}

function details(shown: ShownUser, user: LookedUpUser): ComponentChildren {
  const { id, username, roles, paused, rate, serviceAccount } = shown
  const give = async (event: Submit) => {
    event.preventDefault()
    const form = event.currentTarget
    const role = fieldOf(new FormData(form), 'role')
    const after = [...new Set([...roles, role])]
    if (await user.change(shown, { roles: after }, `Give ${role} to ${username}`)) form.reset()
  }
  const take = (role: string) =>
    user.change(shown, { roles: roles.filter(other => other !== role) }, `Take ${role} from ${username}`)
  const limit = (event: Submit) => {
    event.preventDefault()
    const perMinute = fieldOf(new FormData(event.currentTarget), 'perMinute')
    const after = perMinute === '' ? null : { perMinute: Number(perMinute) }
    void user.change(shown, { rate: after }, `Limit ${username}`)
  }
  const pause = () => user.change(shown, { paused: !paused }, `${paused ? 'Resume' : 'Pause'} ${username}`)
  return html`
    <div class="issued" key=${id}>
      <p><b>${username}</b> ${serviceAccount && html`<span class="badge" title="a user without a password, for a program">service account</span>`} ${paused && html`<span class="badge refused">paused</span>`} ${rate && html`<span class="badge">${shownRate(rate)}</span>`}</p>
      ${roles.length === 0 && html`<p class="quiet">No roles.</p>`}
      <ul class="roles" aria-label="Roles">
        ${roles.map(
          role => html`<li key=${role}>
            <span class="badge">${role}</span>
            <button class="plain" aria-label=${`Take ${role} from ${username}`} onClick=${() => take(role)}>Take</button>
          </li>`,
        )}
      </ul>
      <form onSubmit=${give}>
        <label>Role <input name="role" maxlength="64" autocomplete="off" autocapitalize="none" spellcheck=${false} required /></label>
        <div class="row">
          <button>Give</button>
          <button type="button" onClick=${pause}>${paused ? 'Resume' : 'Pause'}</button>
        </div>
      </form>
      <form onSubmit=${limit}>
        <label>Requests a minute, or nothing for no limit <input name="perMinute" type="number" min="1" max="100000" /></label>
        <div class="row"><button>Limit</button></div>
      </form>
    </div>
  `
}
