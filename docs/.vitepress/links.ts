// Makes links between Markdown files into links between pages. A linked file that is not a page is copied to the site.
import { copyFileSync, mkdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, posix, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { MarkdownRenderer, UserConfig } from 'vitepress'
import { pageOf } from './addresses.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const isPage = (file: string) => /^(docs\/|packages\/|[A-Z]+\.md$)/.test(file) && file.endsWith('.md')

/** Files that pages link to, such as examples. The site has copies of them. */
const linkedFiles = new Set<string>()
/** The extension makes a browser show the file instead of saving it. */
const addressOfCopy = (file: string) => `files/${file}.txt`

/** The address on the site for a link in a page. Throws if the repository has no such file. */
function siteLink(from: string, href: string): string {
  if (/^([a-z]+:|#|\/)/i.test(href)) return href
  const [path = '', hash] = href.split('#')
  const file = posix.join(posix.dirname(from), decodeURI(path))
  const anchor = hash === undefined ? '' : `#${hash}`
  if (file === 'README.md') return `/${anchor}` // its place is taken by docs/index.md
  if (isPage(file)) return `/${pageOf(file)}${anchor}`
  if (!statSync(join(root, file), { throwIfNoEntry: false })?.isFile()) {
    throw new Error(`${from} links ${href}, which is not a file`)
  }
  linkedFiles.add(file)
  return `/${addressOfCopy(file)}`
}

/** A plugin of markdown-it. */
export function siteLinks(md: MarkdownRenderer): void {
  md.core.ruler.push('site-links', ({ tokens, env }) => {
    const from = relative(root, env.realPath ?? env.path).replaceAll('\\', '/')
    for (const token of tokens.flatMap(({ children }) => children ?? [])) {
      const href = token.type === 'link_open' ? token.attrGet('href') : null
      if (href !== null) token.attrSet('href', siteLink(from, href))
    }
  })
}

export function copyLinkedFiles(outDir: string): void {
  for (const file of linkedFiles) {
    const copy = join(outDir, addressOfCopy(file))
    mkdirSync(dirname(copy), { recursive: true })
    copyFileSync(join(root, file), copy)
  }
}

/** Serves the linked files during `npm run docs:dev`, which copies none. */
export const serveLinkedFiles: NonNullable<UserConfig['vite']> = {
  plugins: [
    {
      name: 'linked-files',
      configureServer({ middlewares }) {
        middlewares.use((req, res, next) => {
          const file = [...linkedFiles].find(file => req.url === `/${addressOfCopy(file)}`)
          if (file === undefined) return next()
          res.setHeader('Content-Type', 'text/plain; charset=utf-8').end(readFileSync(join(root, file)))
        })
      },
    },
  ],
}
