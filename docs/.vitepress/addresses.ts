// Which address a Markdown file has on the site, and which anchors its headings have.

/** The address of a Markdown file. Lower case, because some disks do not distinguish SECURITY.md from docs/security.md. */
export function pageOf(file: string): string {
  if (file === 'SECURITY.md') return 'report-a-vulnerability.md'
  return file
    .replace(/^docs\//, '')
    .replace(/\/README\.md$/, '.md')
    .toLowerCase()
}

/** The anchor that GitHub gives to a heading. */
export function slugOf(heading: string): string {
  return heading
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{M}\p{N}\p{Pc} -]/gu, '')
    .replaceAll(' ', '-')
}
