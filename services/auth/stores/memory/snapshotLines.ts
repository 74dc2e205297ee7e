// Snapshots as earlier versions wrote them: a line for each set of shared terms and a line for each token.
import type { Hmac } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { tokenKinds } from '../../../../packages/client/contract.ts'
import { noAuthority, type TokenRecord, type TokenRef, usualLogin } from '../tokenPort.ts'
import type { Renewal } from './rareParts.ts'
import { type Block, emptyHead, rowLength, writeRow } from './snapshotBlocks.ts'
import { packRef } from './table.ts'

const firstLine = 'latchkey tokens 2'
const shape = /^[0-9A-Za-z]{14} [\w-]{20}$/ // an id, and the part of a hash that the store keeps
const loginShape = /^([0-9A-Za-z]{14}|=|-)$/ // `=`: the token's own id
const renewalShape = /^([\w-]{20} \d{1,15}|- -)$/
const tokensPerBlock = 8192

interface Line {
  ref: TokenRef
  token: TokenRecord
  renewal: Renewal | null
}

type SharedTerms = Pick<TokenRecord, 'kind' | 'purpose' | 'userId' | 'username' | 'credentialVersion' | 'ttlMs'>

/** Whether the file begins like these snapshots. */
export async function hasLines(file: FileHandle): Promise<boolean> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(firstLine.length + 1), 0, firstLine.length + 1, 0)
  return buffer.toString('latin1', 0, bytesRead) === `${firstLine}\n`
}

/** The tokens in the blocks of today. Throws like `readBlocks`. */
export async function* readLines(file: FileHandle, checksum: Hmac): AsyncGenerator<Block> {
  let lines: Line[] = []
  for await (const line of tokensOf(file, checksum)) {
    lines.push(line)
    if (lines.length < tokensPerBlock) continue
    yield blockOf(lines)
    lines = []
  }
  yield blockOf(lines)
}

function blockOf(lines: Line[]): Block {
  const head = emptyHead()
  const rows = new Int32Array(lines.length * rowLength)
  for (const [row, { ref, token, renewal }] of lines.entries()) {
    const { kind, purpose, userId, username, credentialVersion, ttlMs, createdAt, absoluteExpiresAt } = token
    const lifetimeMs = absoluteExpiresAt - createdAt
    const terms = { kind, purpose, credentialVersion, ttlMs, lifetimeMs, scope: null, paused: false }
    packRef(ref, rows, row * rowLength)
    writeRow(rows, row * rowLength, token, head.terms.push(terms) - 1)
    const last = head.users.at(-1)
    if (last?.[0] === userId && last[1] === username) last[2]++
    else head.users.push([userId, username, 1])
    if (token.loginId !== usualLogin(token)) head.logins.push([row, token.loginId])
    if (renewal) head.renewals.push([row, renewal.lineage, renewal.renewedAt])
  }
  return { head, rows }
}

/** Throws if the file is not a complete snapshot that was written with this key. */
async function* tokensOf(file: FileHandle, checksum: Hmac): AsyncGenerator<Line> {
  const terms: SharedTerms[] = []
  let lineNumber = 0
  let ended = false
  for await (const line of createInterface({
    input: file.createReadStream({ start: 0, autoClose: false }),
    crlfDelay: Infinity,
  })) {
    if (++lineNumber === 1 && line !== firstLine) throw new Error(`its first line is not "${firstLine}"`)
    if (ended) throw new Error(`something follows its last line`)
    if (line.startsWith('end ')) {
      if (line !== `end ${checksum.digest('hex')}`)
        throw new Error('its checksum is wrong, or it was written with another ADMIN_KEY')
      ended = true
      continue
    }
    checksum.update(`${line}\n`)
    if (line.startsWith('{')) terms.push(parseTerms(line, lineNumber))
    else if (lineNumber > 1) yield parseToken(line, terms, lineNumber)
  }
  if (!ended) throw new Error('it ends too early')
}

function parseTerms(line: string, lineNumber: number): SharedTerms {
  const terms = JSON.parse(line) as SharedTerms
  const { kind, ttlMs, credentialVersion } = terms
  if (!tokenKinds.includes(kind) || !Number.isSafeInteger(ttlMs) || !Number.isSafeInteger(credentialVersion)) {
    throw new Error(`line ${lineNumber} is not a set of shared terms`)
  }
  return terms
}

function parseToken(line: string, terms: SharedTerms[], lineNumber: number): Line {
  const [id = '', hash = '', number, ...members] = line.split(' ')
  const own = terms[Number(number)]
  const numbers = members.slice(0, 5).map(Number)
  const [login = '', lineage = '', renewedAt = '', ...more] = members.slice(5)
  const renewal = lineage === '-' ? null : { lineage, renewedAt: Number(renewedAt) }
  if (
    own === undefined ||
    !shape.test(`${id} ${hash}`) ||
    !numbers.every(Number.isSafeInteger) ||
    !loginShape.test(login) ||
    !renewalShape.test(`${lineage} ${renewedAt}`) ||
    more.length > 0
  ) {
    throw new Error(`line ${lineNumber} is not a token`)
  }
  const [createdAt, lastUsedAt, expiresAt, absoluteExpiresAt, refreshCount] = numbers as [
    number,
    number,
    number,
    number,
    number,
  ]
  const loginId = login === '-' ? null : login === '=' ? id : login
  const rights = {
    scope: null,
    paused: false,
    rate: null,
    usesLeft: null,
    name: null,
    parent: null,
    authority: noAuthority,
  }
  const token = { ...own, ...rights, id, createdAt, loginId, lastUsedAt, expiresAt, absoluteExpiresAt, refreshCount }
  return { ref: { id, hash }, token, renewal }
}
