// The ids and names of the users of the memory store, packed into pages of bytes: a JavaScript string per name would take
// three times the memory, and each garbage collection would visit all of them.
//
// A record is a user's id and username together, so that reading both is one conversion:
//
//   length of the id 2 | length of the username 2, or `noUsername` | id | username
//
// Lengths count UTF-16 units. A unit takes one byte if all units of the record fit in one, otherwise two, which the
// highest bit of the first length says. A record begins at a multiple of 4 bytes; its reference is this multiple. The
// place of a freed record is used again by a record of the same size.

const pageBits = 20
const pageBytes = 1 << pageBits
const header = 4
const twoBytes = 0x8000
const noUsername = 0xffff
const maxLength = 0x7fff
const recentBits = 12

export interface UserNames {
  userId: string
  username: string | null
}

export interface Names {
  /** Returns a reference to the new record. */
  put(names: UserNames): number
  /** The caller must not change the result. */
  read(ref: number): Readonly<UserNames>
  /** Whether the record has this id. */
  hasId(ref: number, userId: string): boolean
  free(ref: number): void
}

export function createNames(): Names {
  const pages: Buffer[] = []
  let next = 0 // the first byte that was never used
  /** Size in bytes -> the first free record of this size, whose first bytes refer to the next one; 0 ends the list. */
  const freed = new Map<number, number>()

  /** Names that were read before, since a few users make most requests; indexed by a hash of the reference. */
  const recent: ({ ref: number; names: UserNames } | undefined)[] = Array.from({ length: 1 << recentBits })

  const pageOf = (ref: number): Buffer => pages[ref >>> (pageBits - 2)] as Buffer

  /** Allocates `size` bytes, all in one page. */
  function allocate(size: number): number {
    const reused = freed.get(size) ?? 0
    if (reused !== 0) {
      freed.set(size, pageOf(reused).readUInt32LE(startOf(reused)))
      return reused
    }
    if (next + size > pages.length * pageBytes) {
      next = pages.length * pageBytes || 4 // reference 0 is kept for the end of a list
      pages.push(Buffer.allocUnsafeSlow(pageBytes))
    }
    next += size
    return (next - size) / 4
  }

  return {
    put({ userId, username }) {
      if (userId.length > maxLength || (username ?? '').length > maxLength) {
        throw new RangeError(`a user id or a username is longer than ${maxLength} characters`)
      }
      const text = userId + (username ?? '')
      const isWide = !isLatin1(text)
      const ref = allocate(sizeOf(text.length, isWide))
      const page = pageOf(ref)
      const start = startOf(ref)
      page.writeUInt16LE(userId.length | (isWide ? twoBytes : 0), start)
      page.writeUInt16LE(username === null ? noUsername : username.length, start + 2)
      page.write(text, start + header, isWide ? 'utf16le' : 'latin1')
      return ref
    },

    read(ref) {
      const known = recent[recentPlaceOf(ref)]
      if (known?.ref === ref) return known.names
      const page = pageOf(ref)
      const start = startOf(ref)
      const { idLength, usernameLength, length, isWide } = readHeader(page, start)
      const end = start + header + (isWide ? 2 * length : length)
      const text = page.toString(isWide ? 'utf16le' : 'latin1', start + header, end)
      const username = usernameLength === noUsername ? null : text.slice(idLength)
      const names = { userId: text.slice(0, idLength), username }
      recent[recentPlaceOf(ref)] = { ref, names }
      return names
    },

    hasId(ref, userId) {
      const page = pageOf(ref)
      const start = startOf(ref)
      const { idLength, isWide } = readHeader(page, start)
      if (idLength !== userId.length) return false
      for (let i = 0; i < idLength; i++) {
        if (unitAt(page, start + header, i, isWide) !== userId.charCodeAt(i)) return false
      }
      return true
    },

    free(ref) {
      const page = pageOf(ref)
      const { length, isWide } = readHeader(page, startOf(ref))
      const size = sizeOf(length, isWide)
      page.writeUInt32LE(freed.get(size) ?? 0, startOf(ref))
      freed.set(size, ref)
      recent[recentPlaceOf(ref)] = undefined
    },
  }
}

/** Where the record begins in its page. */
const startOf = (ref: number): number => (ref << 2) & (pageBytes - 1)

const recentPlaceOf = (ref: number): number => Math.imul(ref, 0x9e3779b1) >>> (32 - recentBits)

function readHeader(page: Buffer, start: number) {
  const first = page.readUInt16LE(start)
  const idLength = first & maxLength
  const usernameLength = page.readUInt16LE(start + 2)
  const length = idLength + (usernameLength === noUsername ? 0 : usernameLength)
  return { idLength, usernameLength, length, isWide: first !== idLength }
}

function unitAt(page: Buffer, start: number, i: number, isWide: boolean): number {
  if (!isWide) return page[start + i] as number
  return (page[start + 2 * i] as number) | ((page[start + 2 * i + 1] as number) << 8)
}

function sizeOf(length: number, isWide: boolean): number {
  const bytes = header + (isWide ? 2 * length : length)
  return (bytes + 3) & ~3
}

function isLatin1(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 0xff) return false
  return true
}
