// What ./startServer prints on a terminal when both services are ready.
import { styleText } from 'node:util'
import type { AuthConfig } from '../../services/auth/config.ts'

export interface Banner {
  businessUrl: string
  authUrl: string
  internalUrl: string
  /** One line per dialect. */
  dialects: string[]
  consoleUrl: string
  /** If null, the example shows placeholders. */
  demoUser: AuthConfig['demoUser']
  logFile: string
  hasRequestLines: boolean
}

/** With colors if stdout is a terminal and NO_COLOR is not set. */
export function bannerOf(banner: Banner): string {
  const { businessUrl, authUrl, internalUrl, dialects, consoleUrl, demoUser, logFile, hasRequestLines } = banner
  const { username, password } = demoUser ?? { username: '<username>', password: '<password>' }
  const body = JSON.stringify({ username, password }).replaceAll("'", "'\\''")
  const rows = [
    ['Business', businessUrl],
    ['Auth', authUrl],
    ['internal', `${internalUrl}   needs a key from .env; the operator's view is at /console`],
    ...dialects.map((line, i) => [i === 0 ? 'dialects' : '', line]),
    ...(demoUser ? [['demo user', `${username} / ${password}`]] : []),
  ]
  return `
${styleText(['bold', 'green'], 'Latchkey is running.')} Open ${styleText(['bold', 'cyan'], consoleUrl)}

${rows.map(([name = '', text]) => `  ${styleText('dim', name.padEnd(10))} ${text}`).join('\n')}

Log in, get data, log out:

  TOKEN=$(curl -s ${authUrl}/login -H 'content-type: application/json' -d '${body}' | cut -d'"' -f4)
  curl -s ${businessUrl}/data -H "token: $TOKEN"
  curl -si -X POST ${authUrl}/logout -H "Authorization: Bearer $TOKEN"

${styleText('dim', `The log is in ${logFile}.${hasRequestLines ? ' Each request gets a line here.' : ''}`)} Press Ctrl-C to stop.
`
}
