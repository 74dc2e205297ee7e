// What every part of the page is drawn with: markup, one drawing per frame, words for those who listen, the clipboard.
import htm from 'htm'
import { h, render } from 'preact'

export const html = htm.bind(h)

/**
 * Draws `view` now and again after each call of what it returns, at most once per frame.
 * @param {() => unknown} view
 * @returns {() => void}
 */
export function openScreen(view) {
  const page = /** @type {HTMLElement} */ (document.getElementById('page'))
  let isDue = false
  const draw = () => {
    if (isDue) return
    isDue = true
    requestAnimationFrame(() => {
      isDue = false
      render(/** @type {import('preact').ComponentChild} */ (view()), page)
    })
  }
  draw()
  return draw
}

/** @param {string} text For a screen reader, once it has said what it is saying. */
export function announce(text) {
  const said = document.getElementById('said')
  if (said) said.textContent = text
}

/**
 * True once it is there; false where the browser lets no page of this address write to it.
 * @param {string} text
 */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text)
    announce('Copied.')
    return true
  } catch {
    return false
  }
}

export const prefersStillness = matchMedia('(prefers-reduced-motion: reduce)')

/** @param {number} ms */
export function shownMs(ms) {
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`
}

/** @param {number} count @param {string} one @param {string} [many] */
export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`
}

/** @param {FormData} form @param {string} name */
export function textOf(form, name) {
  return String(form.get(name) ?? '').trim()
}
