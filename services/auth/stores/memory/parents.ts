// The parents of the delegated tokens in the memory store, by slot. Few tokens have one, so a touch of the others must cost no
// more than a comparison.
import type { Parent } from '../tokenPort.ts'
import type { RareParts } from './rareParts.ts'
import { column, none, type TokenTable } from './table.ts'
import type { TermsTable } from './terms.ts'

export interface Parents {
  /** The slot of the parent, dead or alive; `none` if the token was not delegated, or if its parent is gone. */
  of(slot: number): number
  /** Whether the token was delegated from one that is dead. */
  isDead(slot: number, now: number): boolean
  read(slot: number): Parent | null
}

export function createParents(table: TokenTable, terms: TermsTable, { parents, names }: RareParts): Parents {
  const idOf = (slot: number): string | undefined => (parents.size === 0 ? undefined : parents.get(slot))

  return {
    of(slot) {
      const id = idOf(slot)
      return id === undefined ? none : table.find(id)
    },

    isDead(slot, now) {
      const id = idOf(slot)
      if (id === undefined) return false
      const parent = table.find(id)
      return parent === none || table.expiresAt(parent) <= now
    },

    read(slot) {
      const id = idOf(slot)
      if (id === undefined) return null
      const parent = table.find(id)
      if (parent === none) return { id, scope: '', name: null } // no rights are left
      return { id, scope: terms.at(table.get(parent, column.terms)).scope, name: names.get(parent) ?? null }
    },
  }
}
