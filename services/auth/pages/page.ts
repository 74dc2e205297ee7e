// What the routes of all pages have in common.
import type { Route } from '../../../shared/http/route.ts'

export type PageRoute<Deps = unknown> = Route<Deps, 'none'>

const notModified = { description: 'The client has this already: its ETag was in If-None-Match' }

export const pageDescription = {
  guard: 'none',
  tag: 'Documents',
  answers: { 200: { description: 'A page', types: ['text/html'] }, 304: notModified },
} as const

/** The description of the files that a page loads. */
export function fileDescription(description: string, types: readonly string[]) {
  return {
    ...pageDescription,
    answers: { 200: { description, types }, 304: notModified },
    problems: { 404: 'There is no such file.' },
  } as const
}
