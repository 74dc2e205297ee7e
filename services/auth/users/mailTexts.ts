// The mails that Latchkey sends to users.
import type { Mail } from './mail.ts'

export type MailText = Pick<Mail, 'subject' | 'text'>

export const confirmationMail = (link: string): MailText => ({
  subject: 'Confirm your address',
  text: `Someone, probably you, has registered with this address. To confirm it, open\n\n${link}\n\nwithin 30 minutes. If it was not you, do nothing: the account stays closed.\n`,
})

/** The user has no password. */
export const firstPasswordMail = (link: string): MailText => ({
  subject: 'Choose a password',
  text: `This address has an account without a password: an operator created it, or the address was registered more than once before it was confirmed, and then none of those passwords is valid. To confirm the address and choose a password, open\n\n${link}\n\nwithin 30 minutes. If you do not expect this, do nothing: the account stays closed.\n`,
})

export const resetMail = (link: string): MailText => ({
  subject: 'Choose a new password',
  text: `Someone, probably you, has asked for a new password for this address. To choose one, open\n\n${link}\n\nwithin 30 minutes. If it was not you, do nothing: your password stays as it is.\n`,
})

export const operatorResetMail = (link: string): MailText => ({
  subject: 'Choose a new password',
  text: `An operator has asked you to choose a new password. To do so, open\n\n${link}\n\nwithin 30 minutes. Until then your password stays as it is.\n`,
})

export const passwordChangedMail: MailText = {
  subject: 'Your password was changed',
  text: 'The password of your account has just been changed, and your other sessions have ended.\nIf it was not you, ask for a new password at once.\n',
}

export const usernameChangedMail: MailText = {
  subject: 'Your username was changed',
  text: 'The username of your account has just been changed, and all your sessions have ended.\nIf it was not you, tell the operator at once.\n',
}

export const confirmEmailMail = (link: string): MailText => ({
  subject: 'Confirm your address',
  text: `Someone, probably you, wants mails about their account to go to this address. To confirm it, open\n\n${link}\n\nwithin 30 minutes. If it was not you, do nothing.\n`,
})

/** For the address where mails went until now. */
export const emailChangedMail: MailText = {
  subject: 'Your address was changed',
  text: 'From now on, mails about your account go to another address than this one, and your other sessions have ended.\nIf it was not you, tell the operator at once.\n',
}

/** An earlier secret of a session was used at `at`, in epoch milliseconds. */
export const sessionStoppedMail = (action: 'ended' | 'paused', at: number): MailText => ({
  subject: `One of your sessions was ${action}`,
  text: `On ${new Date(at).toUTCString()}, one of your sessions was used with a secret that had been replaced before. Either the session was stolen, or a program of yours kept an old copy. ${
    action === 'ended'
      ? 'The session has ended; log in again to continue.'
      : 'The session is paused until an operator resumes it; meanwhile you can log in again.'
  }\nIf you cannot explain it, ask for a new password at once, which ends all your sessions.\n`,
})

export const accountExistsMail: MailText = {
  subject: 'You have an account already',
  text: 'Someone, probably you, tried to register with this address, which has an account already.\nIf you have forgotten its password, ask for a new one.\n',
}
