// The documentation site: npm run docs:dev, npm run docs:build. Its pages are the Markdown files as they stand in the repository.
import { type DefaultTheme, defineConfig } from 'vitepress'
import { pageOf, slugOf } from './addresses.ts'
import { copyLinkedFiles, serveLinkedFiles, siteLinks } from './links.ts'

const page = (text: string, file: string): DefaultTheme.SidebarItem => ({ text, link: `/${pageOf(file)}` })

export default defineConfig({
  title: 'Latchkey',
  description:
    'Bearer tokens that are checked on every request: nothing is cached, so a revoked token is refused at once',
  lang: 'en',
  srcDir: '..',
  srcExclude: ['!(docs|packages|*.md)/**', 'README.md'],
  rewrites: pageOf,
  ignoreDeadLinks: 'localhostLinks', // addresses of a running Latchkey
  markdown: { anchor: { slugify: slugOf }, config: md => md.use(siteLinks) },
  vite: serveLinkedFiles,
  buildEnd: ({ outDir }) => copyLinkedFiles(outDir),
  head: [['link', { rel: 'icon', href: 'data:,' }]],
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    sidebar: [
      {
        text: 'Use',
        items: [
          page('Overview', 'docs/index.md'),
          page('Quick starts', 'docs/quick-start.md'),
          page('Protect your service', 'docs/protect-your-service.md'),
          page('Client for Node.js', 'packages/client/README.md'),
          page('Client for Python', 'packages/client-python/README.md'),
          page('HTTP API', 'docs/http-api.md'),
          page('Keys for programs', 'docs/keys.md'),
          page('Older services', 'docs/dialects.md'),
        ],
      },
      {
        text: 'Run',
        items: [
          page('Deployment', 'docs/deploy.md'),
          page('Configuration', 'docs/configuration.md'),
          page('Operations', 'docs/operations.md'),
          page('Users', 'docs/users.md'),
          page('Capacity', 'docs/capacity.md'),
          page('Security', 'docs/security.md'),
          page('Report a vulnerability', 'SECURITY.md'),
          page('Changes', 'CHANGELOG.md'),
        ],
      },
      {
        text: 'Evidence',
        items: [page('Benchmarks', 'docs/benchmarks.md'), page('Reliability', 'docs/reliability.md')],
      },
      {
        text: 'Internals',
        collapsed: true,
        items: [
          page('Architecture', 'docs/architecture.md'),
          page('Decisions', 'docs/decisions.md'),
          page('Contributing', 'CONTRIBUTING.md'),
          page('Conformance of clients', 'packages/client/conformance/README.md'),
          page('Security requirements', 'docs/security-requirements.md'),
          page('Recorded histories', 'docs/histories.md'),
          page('Mutation testing', 'docs/mutation.md'),
        ],
      },
    ],
  },
})
