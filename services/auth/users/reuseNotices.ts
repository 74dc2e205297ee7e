// Notifies users by mail when an earlier secret of one of their sessions was used. Hides that a session causes at most one mail a
// day, although it may be resumed and paused again.
import type { OpenCounter } from '../../../shared/counters.ts'
import type { UserStore } from '../stores/userPort.ts'
import type { RefusalEvent } from '../tokens/refusals.ts'
import { mailboxOf } from './emails.ts'
import type { MailEvent, Mailer } from './mail.ts'
import { sessionStoppedMail } from './mailTexts.ts'

type Reuse = Extract<RefusalEvent, { type: 'renewed_secret_reused' }>

export interface ReuseNoticesOptions {
  users: Pick<UserStore, 'findById'>
  /** Null if mails cannot be sent. */
  mailer: Mailer | null
  openCounter: OpenCounter
  /** Epoch milliseconds. */
  now: () => number
  emit: (event: MailEvent) => void
}

const dayMs = 24 * 3_600_000

/** The returned function never rejects, and need not be awaited. Emits `mail_lost` if it cannot find out where the mail goes. */
export function createReuseNotices({ users, mailer, openCounter, now, emit }: ReuseNoticesOptions) {
  const mails = openCounter('reuseMails', dayMs)

  async function send({ tokenId, action }: Reuse, userId: string, mailer: Mailer): Promise<void> {
    const text = sessionStoppedMail(action, now())
    const user = await users.findById(userId)
    if (user === null || user.deletedAt !== null || user.confirmedAt === null) return
    const to = mailboxOf(user)
    if (to === null || (await mails.add(tokenId)).count > 1) return
    mailer.send({ userId, address: '', to, ...text })
  }

  return async function notify(reuse: Reuse): Promise<void> {
    const { userId } = reuse
    if (mailer === null || userId === null) return
    await send(reuse, userId, mailer).catch(cause => emit({ type: 'mail_lost', userId, tries: 0, cause }))
  }
}
