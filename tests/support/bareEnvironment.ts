// The environment of a process that must not inherit the settings of the process that runs the tests.

/** Where programs are, and where compiled code is kept. */
export function bareEnvironment(): Record<string, string> {
  const { PATH = '', NODE_COMPILE_CACHE } = process.env
  return { PATH, ...(NODE_COMPILE_CACHE && { NODE_COMPILE_CACHE }) }
}
