// Reads an environment through the schemas of settings: a blank variable counts as unset, a secret may be in a file, and all
// problems are reported at once.
import { readFileSync } from 'node:fs'
import type { z } from 'zod'
import { metaOf } from './settings.ts'

export type Environment = Record<string, string | undefined>

export type Settings<T extends z.ZodRawShape> = z.output<z.ZodObject<T>>

/** Lists every problem of an environment, one line each: `NAME: expected …; got …`. */
export class ConfigError extends Error {
  readonly problems: string[]

  constructor(problems: string[]) {
    super(problems.join('\n'))
    this.name = 'ConfigError'
    this.problems = problems
  }
}

/**
 * Throws a `ConfigError` with every problem. `check` adds the problems that concern several settings; in its argument, an
 * invalid setting is undefined.
 */
export function readSettings<T extends z.ZodRawShape>(
  shape: T,
  env: Environment,
  check: (settings: Partial<Settings<T>>, problems: string[]) => void = () => {},
): Settings<T> {
  const problems: string[] = []
  const settings: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(shape)) {
    const { expected, secret } = metaOf(schema as z.ZodType)
    const value = unlessBlank(env[name]) ?? (secret && readSecretFile(`${name}_FILE`, env, problems))
    const result = (schema as z.ZodType).safeParse(value)
    if (result.success) {
      settings[name] = result.data
    } else {
      problems.push(`${name}: expected ${expected}; ${describeFound(value, Boolean(secret))}`)
    }
  }
  check(settings as Partial<Settings<T>>, problems)
  problems.push(...findMisspelt(Object.keys(shape), env))
  if (problems.length > 0) throw new ConfigError(problems)
  return settings as Settings<T>
}

function describeFound(value: string | undefined, isSecret: boolean): string {
  if (value === undefined) return 'it is missing'
  return isSecret ? 'got something else' : `got ${JSON.stringify(value)}`
}

function unlessBlank(value: string | undefined): string | undefined {
  return value?.trim() === '' ? undefined : value
}

function readSecretFile(name: string, env: Environment, problems: string[]): string | undefined {
  const path = unlessBlank(env[name])
  if (path === undefined) return undefined
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (error) {
    problems.push(`${name}: expected a readable file; ${path}: ${(error as NodeJS.ErrnoException).code}`)
    return undefined
  }
}

/** Other programs share the environment, so unknown names are allowed; but a misspelt setting would be silently ignored. */
function findMisspelt(known: string[], env: Environment): string[] {
  return Object.keys(env).flatMap(name => {
    if (known.includes(name)) return []
    const meant = known.find(setting => setting.length >= 8 && isOneTypoAway(name.toUpperCase(), setting))
    return meant === undefined ? [] : [`${name}: no setting has this name; did you mean ${meant}?`]
  })
}

/** One character is missing, added or different, or two neighbours are swapped. */
function isOneTypoAway(typed: string, meant: string): boolean {
  let start = 0
  while (start < typed.length && typed[start] === meant[start]) start++
  let end = 0
  while (end < Math.min(typed.length, meant.length) - start && typed.at(-1 - end) === meant.at(-1 - end)) end++
  const [left, right] = [typed.slice(start, typed.length - end), meant.slice(start, meant.length - end)]
  return (left.length <= 1 && right.length <= 1) || (left.length === 2 && left === `${right[1]}${right[0]}`)
}
