// The levels of the log, beside it because settings name them, and commands that read settings write no log.

export const logLevels = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof logLevels)[number]
