// What ./startServer prints on a terminal when both services are ready.
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
}

export function bannerOf(banner: Banner): string {
  const { businessUrl, authUrl, internalUrl, dialects, consoleUrl, demoUser, logFile } = banner
  const { username, password } = demoUser ?? { username: '<username>', password: '<password>' }
  const body = JSON.stringify({ username, password }).replaceAll("'", "'\\''")
  const rows = [
    ['Business', businessUrl],
    ['Auth', authUrl],
    ['internal', `${internalUrl}   needs a key from .env; the operator's console is at /console`],
    ...dialects.map((line, i) => [i === 0 ? 'dialects' : '', line]),
    ...(demoUser ? [['demo user', `${username} / ${password}`]] : []),
  ]
  return `
Latchkey is running. Open ${consoleUrl}

${rows.map(([name = '', text]) => `  ${name.padEnd(10)} ${text}`).join('\n')}

Log in, get data, log out:

  TOKEN=$(curl -s ${authUrl}/login -H 'content-type: application/json' -d '${body}' | cut -d'"' -f4)
  curl -s ${businessUrl}/data -H "token: $TOKEN"
  curl -si -X POST ${authUrl}/logout -H "Authorization: Bearer $TOKEN"

The log is in ${logFile}. Press Ctrl-C to stop.
`
}
