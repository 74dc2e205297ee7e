// What is known about users besides what Latchkey needs: a small JSON object that the operator writes, except for its member
// `profile`, which the user writes. Hides that both parts are stored as one text, replaced only if it is still the one read.
import type { UserRecord, UserStore } from '../stores/userPort.ts'

/** A JSON object. Its member `profile`, if any, is an object too. */
export type Attributes = Record<string, unknown>

export type AttributesEvent = { type: 'attributes_changed'; userId: string }

/** Bytes of all attributes as JSON. */
export const maxAttributesBytes = 1024
/** Bytes of the profile as JSON, so that a user cannot take the operator's half. */
export const maxProfileBytes = 512

export const noAttributes = '{}'

export interface UserAttributes {
  /**
   * Replaces everything but the profile, and the profile too if `attributes` has one. `too_large` if there would be more than
   * `maxAttributesBytes`; null if there is no such user.
   */
  replace(id: string, attributes: Attributes): Promise<UserRecord | 'too_large' | null>

  /** Replaces the profile. Resolves like `replace`. */
  replaceProfile(id: string, profile: Attributes): Promise<UserRecord | 'too_large' | null>
}

export interface UserAttributesOptions {
  store: Pick<UserStore, 'findById' | 'updateAttributes'>
  emit: (event: AttributesEvent) => void
}

export function createUserAttributes({ store, emit }: UserAttributesOptions): UserAttributes {
  async function change(id: string, changed: (stored: Attributes) => Attributes) {
    for (;;) {
      const user = await store.findById(id)
      if (user === null || user.deletedAt !== null) return null
      const text = JSON.stringify(changed(attributesOf(user)))
      if (bytesOf(text) > maxAttributesBytes) return 'too_large'
      const updated = await store.updateAttributes(id, user.attributes, text)
      if (updated === null) continue // another request was first
      emit({ type: 'attributes_changed', userId: id })
      return updated
    }
  }

  return {
    replace: (id, attributes) => change(id, stored => replaced(stored, attributes)),
    replaceProfile: (id, profile) => change(id, stored => ({ ...stored, profile })),
  }
}

function replaced({ profile }: Attributes, attributes: Attributes): Attributes {
  return { ...(profile === undefined ? {} : { profile }), ...attributes }
}

/** Whether `UserAttributes.replace` would refuse these attributes as `too_large`. */
export function wouldBeTooLarge(user: Pick<UserRecord, 'attributes'>, attributes: Attributes): boolean {
  return bytesOf(JSON.stringify(replaced(attributesOf(user), attributes))) > maxAttributesBytes
}

export function attributesOf({ attributes }: Pick<UserRecord, 'attributes'>): Attributes {
  return JSON.parse(attributes) as Attributes
}

export function bytesOf(json: string): number {
  return Buffer.byteLength(json)
}
