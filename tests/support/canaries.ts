// The canary run: everything that a suite writes is searched for secrets, and a test fails if a secret is found after it.
// Tokens are recognised by their shape; the passwords and keys of the tests carry a mark.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const secrets: [name: string, shape: RegExp][] = [
  ['a token', /lk_(?:key_)?[0-9A-Za-z]{63}/],
  ['a JWT', /eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}/],
  // The canaries of docs/keys.md are something else: an event and a member of an answer have this name.
  ['a marked password or key', /CANARY(?!_used|"?:)/i],
  ['the password of the demo user', /\bpostman\b/],
]

const found: string[] = []

/** `where` names the place in the failure message. */
export function searchForSecrets(text: string, where: string): void {
  for (const [name, shape] of secrets) {
    const hit = shape.exec(text)
    if (hit !== null)
      found.push(`${where} has ${name}: ${JSON.stringify(hit[0])} in ${JSON.stringify(excerptOf(text, hit))}`)
  }
}

/** Searches log lines except mails: in development without a mail server, Auth logs them with their links. */
export function searchLog(lines: string[], where: string): void {
  for (const line of lines) if (!line.includes('"event":"mail"')) searchForSecrets(line, where)
}

/** Searches every file below the folder except symbolic links and .env, where keys belong. */
export function searchFolder(folder: string): void {
  if (!existsSync(folder)) return
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) searchFolder(path)
    if (entry.isFile() && entry.name !== '.env') searchForSecrets(readFileSync(path, 'latin1'), path)
  }
}

function excerptOf(text: string, { index, 0: hit }: RegExpExecArray): string {
  return text.slice(Math.max(0, index - 100), index + hit.length + 20)
}

// The hooks are undefined when a server of the tests runs without mocha.
globalThis.afterEach?.('nothing contains a secret', reportSecrets)
globalThis.after?.('nothing contains a secret', reportSecrets)

function reportSecrets(): void {
  const all = found.splice(0)
  if (all.length > 0) throw new Error(`the canary run found secrets:\n${[...new Set(all)].slice(0, 10).join('\n')}`)
}
