// What every part of the page uses: markup, redrawing, announcements for screen readers, the clipboard, words for numbers.
import htm from 'htm'
import { type ComponentChildren, h, options, render } from 'preact'
import { useEffect, useReducer, useRef } from 'preact/hooks'

export const html = htm.bind(h)

const tickMs = 250
const prefersReducedMotion = matchMedia('(prefers-reduced-motion: reduce)')

// However much changes, components are drawn at most once per frame.
options.debounceRendering = draw => requestAnimationFrame(draw)

export function openPage(page: ComponentChildren): void {
  const parent = document.getElementById('page')
  if (parent !== null) render(page, parent)
}

/** Returns a function that draws the component again. For state that is not in a hook. */
export function useRedraw(): () => void {
  const [, redraw] = useReducer((count: number, _action: undefined) => count + 1, 0)
  return () => redraw(undefined)
}

/**
 * Calls `tick` and redraws the component four times a second. The style sheet turns the steps of a ring into one movement.
 * If the user prefers reduced motion, the ring makes one step per second instead.
 */
export function useTick(tick: () => void): void {
  const redraw = useRedraw()
  const latest = useRef(tick)
  latest.current = tick
  useEffect(() => {
    let tickedAt = 0
    const timer = setInterval(() => {
      if (prefersReducedMotion.matches && performance.now() - tickedAt < 1000 - tickMs / 2) return
      tickedAt = performance.now()
      latest.current()
      redraw()
    }, tickMs)
    return () => clearInterval(timer)
  }, [])
}

/** Makes a screen reader say `text` when it has finished what it is saying. */
export function announce(text: string): void {
  const status = document.getElementById('said')
  if (status) status.textContent = text
}

/** Resolves to false if the browser does not let this page write to the clipboard. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    announce('Copied.')
    return true
  } catch {
    return false
  }
}

export function formatMs(ms: number): string {
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`
}

export function formatNumber(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–'
  if (value >= 100) return Math.round(value).toLocaleString('en')
  return Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 2 : 1)
}

/** "1 call", "2 calls". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`
}

/** "once", "2 times". */
export function times(count: number): string {
  return count === 1 ? 'once' : `${formatNumber(count)} times`
}

export function fieldOf(form: FormData, name: string): string {
  return String(form.get(name) ?? '').trim()
}

export function shownRate({ perMinute, burst }: { perMinute: number; burst: number }): string {
  return `${formatNumber(perMinute)} a minute, ${formatNumber(burst)} at once`
}
