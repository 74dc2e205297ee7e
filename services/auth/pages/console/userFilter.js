// What was typed to see the tokens of one user only, and what Auth says to that: the page knows but some of the tokens.
// Hides the pause before it asks, and answers that come too late.
const pauseMs = 400 // each question is in the log of Auth

/**
 * @typedef {object} UserFilter
 * @property {string} text
 * @property {'asking' | 'found' | 'nobody' | 'no answer'} state Of the user who is called that; `asking` also where nothing was typed.
 * @property {string | null} userId His, where he was found.
 */

/**
 * @param {object} options
 * @param {(text: string) => Promise<string | null | undefined>} options.learn Learns the tokens of the user of this name
 *   or id, and resolves to his id; null: there is none, undefined: no answer.
 * @param {() => void} options.onChange
 */
export function createUserFilter({ learn, onChange }) {
  /** @type {UserFilter} */
  const filter = { text: '', state: 'asking', userId: null }
  let timer = 0

  /** @param {string} text */
  function type(text) {
    clearTimeout(timer)
    Object.assign(filter, { text, state: 'asking', userId: null })
    timer = setTimeout(ask, pauseMs)
    onChange()
  }

  async function ask() {
    const { text } = filter
    if (text.trim() === '') return
    const userId = await learn(text.trim())
    if (filter.text !== text) return
    filter.state = userId === undefined ? 'no answer' : userId === null ? 'nobody' : 'found'
    filter.userId = userId ?? null
    onChange()
  }

  return { filter, type, ask }
}
