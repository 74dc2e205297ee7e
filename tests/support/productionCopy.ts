// A copy of what is shipped, with the packages that `npm ci --omit=dev` installs. It finds no package beside them, because it has
// a folder of its own and links to nothing.
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

interface LockFile {
  packages: Record<string, { dev?: boolean }>
}

const shipped = ['startServer', 'commands', 'packages', 'services', 'shared', 'package.json', 'package-lock.json']

/** Copies what is shipped to `folder`, without packages. */
export function copyWithoutPackages(folder: string): void {
  for (const part of shipped) cpSync(part, join(folder, part), { recursive: true })
}

/** Copies the packages that the lock file does not mark as dev. */
export function installProductionPackages(folder: string): void {
  const { packages, ...lock } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as LockFile
  const kept = new Set(Object.keys(packages).filter(path => path !== '' && packages[path]?.dev !== true))
  const isKept = (path: string) => !existsSync(join(path, 'package.json')) || !(path in packages) || kept.has(path)
  mkdirSync(join(folder, 'node_modules'), { recursive: true })
  for (const path of kept) {
    // Nested packages are copied with their parents.
    if (path.split('node_modules/').length > 2 || !existsSync(path)) continue
    cpSync(path, join(folder, path), { recursive: true, filter: isKept })
  }
  const installed = Object.fromEntries([...kept].map(path => [path, packages[path]]))
  const text = JSON.stringify({ ...lock, packages: installed }, null, 2)
  writeFileSync(join(folder, 'node_modules/.package-lock.json'), text)
}
