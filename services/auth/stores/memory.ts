// Tokens and users in this process: gone with it. Every method is one synchronous step, hence atomic.
import type { TokenRecord, TokenStore, UserRecord, UserStore } from './ports.ts'

export async function openTokenStore(): Promise<TokenStore> {
  const tokens = new Map<string, TokenRecord>()
  const floors = new Map<string, number>()
  let sweepAt: MapIterator<[string, TokenRecord]> | null = null
  const gate = createGate()

  const isBelowFloor = ({ userId, credentialVersion }: TokenRecord): boolean =>
    userId !== null && credentialVersion < (floors.get(userId) ?? 0)

  return {
    async insert({ hash }, token) {
      gate.check()
      if (isBelowFloor(token)) return false
      tokens.set(hash, { ...token })
      return true
    },

    async touch(refs, now) {
      gate.check()
      return refs.map(({ hash }) => {
        const token = tokens.get(hash)
        if (token === undefined || token.expiresAt <= now || isBelowFloor(token)) return null
        token.expiresAt = Math.min(now + token.ttlMs, token.absoluteExpiresAt)
        token.refreshCount++
        return { ...token }
      })
    },

    async delete({ hash }) {
      gate.check()
      const token = tokens.get(hash)
      tokens.delete(hash)
      return token ?? null
    },

    async endUser(_tag, userId, version) {
      gate.check()
      floors.set(userId, Math.max(version, floors.get(userId) ?? 0))
    },

    async deleteExpired(now, limit) {
      gate.check()
      sweepAt ??= tokens.entries()
      let removed = 0
      for (let looked = 0; looked < limit; looked++) {
        const { value, done } = sweepAt.next()
        if (done) {
          sweepAt = null
          return { removed, done: true }
        }
        const [hash, token] = value
        if (token.expiresAt <= now || isBelowFloor(token)) {
          tokens.delete(hash)
          removed++
        }
      }
      return { removed, done: false }
    },

    close: gate.close,
  }
}

export async function openUserStore(): Promise<UserStore> {
  const users = new Map<string, UserRecord>()
  const gate = createGate()

  return {
    async insert(user) {
      gate.check()
      if (users.has(user.username)) return false
      users.set(user.username, { ...user })
      return true
    },

    async findByUsername(username) {
      gate.check()
      const user = users.get(username)
      return user ? { ...user } : null
    },

    close: gate.close,
  }
}

function createGate() {
  let closed = false
  return {
    check(): void {
      if (closed) throw new Error('the store is closed')
    },
    async close(): Promise<void> {
      closed = true
    },
  }
}
