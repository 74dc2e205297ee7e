// Log-in failures, which must not reveal who has an account.
import { randomUUID } from 'node:crypto'
import { CheckFailure, type Exchange } from './client.ts'
import { expectCode, expectStatus } from './expectations.ts'
import { type Credentials, isLoopback, type SmokeRun } from './run.ts'

const demoUser = { username: 'demo@example.com', password: 'postman' }
const maxTimingDifferenceMs = 40

export async function checkLogin(run: SmokeRun): Promise<void> {
  const { auth, user } = run.target
  await run.check('an unknown user cannot log in', async () => {
    const exchange = await logInUnknown(run)
    expectStatus(exchange, 401, 'an unknown user is 401')
    expectCode(exchange, 'invalid_credentials')
    return '401 invalid_credentials'
  })
  if (!isLoopback(new URL(auth).hostname)) {
    await run.check('the demo user of the documentation does not exist', async () => {
      const { status } = await run.logIn(demoUser)
      if (status === 200) {
        throw new CheckFailure(
          'demo@example.com can log in with the password from the README: delete this user and set NODE_ENV=production',
        )
      }
      return String(status)
    })
  }
  if (user !== null) await run.check('a wrong password looks like an unknown user', () => compareFailures(run, user))
}

function logInUnknown({ logIn }: SmokeRun): Promise<Exchange> {
  return logIn({ username: `nobody-${randomUUID()}@example.com`, password: randomUUID() })
}

async function compareFailures(run: SmokeRun, { username }: Credentials): Promise<string> {
  const tryWrongPassword = () => run.logIn({ username, password: randomUUID() })
  const wrong = await tryWrongPassword()
  const unknown = await logInUnknown(run)
  expectStatus(wrong, 401, 'a wrong password is 401')
  if (comparable(wrong) !== comparable(unknown)) {
    throw new CheckFailure('the responses differ in more than the X-Request-Id, which reveals who has an account')
  }
  const unknownMs = Math.round(unknown.durationMs)
  let knownMs = Math.round(wrong.durationMs)
  const differs = () => knownMs - unknownMs > maxTimingDifferenceMs && unknownMs < knownMs / 3
  // A single slow response may be chance: a busy machine, a lost packet.
  for (let i = 0; i < 2 && differs(); i++) {
    knownMs = Math.min(knownMs, Math.round((await tryWrongPassword()).durationMs))
  }
  if (differs()) {
    throw new CheckFailure(
      `the responses are equal, but take ${unknownMs} ms for an unknown user and ${knownMs} ms for a known one, which reveals who has an account`,
    )
  }
  return `the same bytes, ${knownMs} and ${unknownMs} ms`
}

/** The response without the parts that differ every time. */
function comparable({ status, headers, text, body }: Exchange): string {
  const { date, 'x-request-id': id, ...rest } = headers
  const content = text.replaceAll(String(body['requestId']), '')
  return JSON.stringify([status, rest, content, date === undefined, id === undefined])
}
