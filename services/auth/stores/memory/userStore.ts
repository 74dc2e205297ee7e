// The user store in the memory of this process, lost when it exits. Every method is one synchronous step and therefore
// atomic. Records are copied on the way in and out.
import type { UserRecord, UserStore } from '../userPort.ts'
import { createGate } from './gate.ts'

export async function openUserStore(): Promise<UserStore> {
  const byUsername = new Map<string, UserRecord>()
  const byId = new Map<string, UserRecord>()
  const gate = createGate()

  return {
    async insert(user) {
      gate.check()
      if (byUsername.has(user.username) || byId.has(user.id)) return false
      const own = { ...user }
      byUsername.set(user.username, own)
      byId.set(user.id, own)
      return true
    },

    async findByUsername(username) {
      gate.check()
      const user = byUsername.get(username)
      return user ? { ...user } : null
    },

    async findById(id) {
      gate.check()
      const user = byId.get(id)
      return user ? { ...user } : null
    },

    async update(id, ifVersion, changes) {
      gate.check()
      const user = byId.get(id)
      return user?.credentialVersion === ifVersion ? { ...Object.assign(user, changes) } : null
    },

    async updateAuthority(id, ifVersion, changes) {
      gate.check()
      const user = byId.get(id)
      return user?.authority.version === ifVersion ? { ...Object.assign(user, changes) } : null
    },

    async updateAttributes(id, ifAttributes, attributes) {
      gate.check()
      const user = byId.get(id)
      return user?.attributes === ifAttributes ? { ...Object.assign(user, { attributes }) } : null
    },

    async rename(id, ifVersion, changes) {
      gate.check()
      const user = byId.get(id)
      if (user?.credentialVersion !== ifVersion) return null
      const holder = byUsername.get(changes.username)
      if (holder !== undefined && holder !== user) return 'taken'
      byUsername.delete(user.username)
      byUsername.set(changes.username, Object.assign(user, changes))
      return { ...user }
    },

    async delete(id) {
      gate.check()
      const user = byId.get(id)
      if (user) byUsername.delete(user.username)
      return byId.delete(id)
    },

    async list(afterId, limit) {
      gate.check()
      const ids = [...byId.keys()].filter(id => afterId === null || id > afterId).sort()
      return ids.slice(0, limit).map(id => ({ ...(byId.get(id) as UserRecord) }))
    },

    async search(prefix, afterId, limit) {
      gate.check()
      const found = [...byId.values()].filter(({ id, username }) => {
        return username.startsWith(prefix) && (afterId === null || id > afterId)
      })
      found.sort((a, b) => (a.id < b.id ? -1 : 1))
      return found.slice(0, limit).map(user => ({ ...user }))
    },

    async findUnfinished(limit) {
      gate.check()
      const unfinished = [...byId.values()].filter(user => user.endedVersion < user.credentialVersion)
      return unfinished.slice(0, limit).map(user => ({ ...user }))
    },

    async findUnmirrored(limit) {
      gate.check()
      const unmirrored = [...byId.values()].filter(user => user.mirroredAuthority < user.authority.version)
      return unmirrored.slice(0, limit).map(user => ({ ...user }))
    },

    close: gate.close,
  }
}
