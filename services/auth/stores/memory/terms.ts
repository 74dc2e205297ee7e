// The terms of the tokens in the memory store: what many tokens share. A token holds the number of its terms instead.
import type { TokenKind, TokenRecord } from '../tokenPort.ts'

export interface Terms
  extends Pick<TokenRecord, 'credentialVersion' | 'kind' | 'purpose' | 'ttlMs' | 'scope' | 'paused'> {
  /** `absoluteExpiresAt - createdAt`, which is the same for all tokens that were issued with the same settings. */
  lifetimeMs: number
}

export interface TermsTable {
  /** The terms with this number. */
  at(number: number): Terms
  /** Counts one more token with these terms, and returns their number. */
  add(terms: Terms): number
  /** Like `add`, for terms that have a token already. */
  addTo(number: number): number
  /** Counts one token less. Terms without tokens are forgotten. */
  remove(number: number): void
  /** The number of tokens of each kind. */
  counts: Readonly<Record<TokenKind, number>>
}

interface Entry {
  terms: Terms
  key: string
  tokens: number
}

export function createTermsTable(): TermsTable {
  const entries: Entry[] = []
  const numbers = new Map<string, number>()
  const freeNumbers: number[] = []
  const counts: Record<TokenKind, number> = { sliding: 0, fixed: 0, 'single-use': 0 }

  const entryAt = (number: number): Entry => entries[number] as Entry

  function numberOf(key: string, terms: Terms): number {
    const known = numbers.get(key)
    if (known !== undefined) return known
    const number = freeNumbers.pop() ?? entries.length
    entries[number] = { terms, key, tokens: 0 }
    numbers.set(key, number)
    return number
  }

  function addTo(number: number): number {
    const entry = entryAt(number)
    entry.tokens++
    counts[entry.terms.kind]++
    return number
  }

  return {
    counts,
    addTo,

    at: number => entryAt(number).terms,

    add({ kind, purpose, credentialVersion, ttlMs, lifetimeMs, scope, paused }) {
      const terms = { kind, purpose, credentialVersion, ttlMs, lifetimeMs, scope, paused }
      // Each insert makes a key; JSON takes longer, and few tokens need it.
      const isUsual = scope === null && !paused
      const usualKey = `${kind} ${credentialVersion} ${ttlMs} ${lifetimeMs}${purpose === null ? '' : ` ${purpose}`}`
      return addTo(numberOf(isUsual ? usualKey : JSON.stringify(terms), terms))
    },

    remove(number) {
      const entry = entryAt(number)
      counts[entry.terms.kind]--
      if (--entry.tokens > 0) return
      numbers.delete(entry.key)
      freeNumbers.push(number)
    },
  }
}
