// The answer of GET /console/settings.json. Contains types only, which Auth imports too.

export interface ConsoleSettings {
  /** Empty if Business serves this page, null if the address is not configured. */
  businessUrl: string | null
  /** The address of Auth as its users see it: Business accepts calls from pages of this origin only. */
  publicUrl: string
  /** Null if the demo user must not be shown. */
  shownDemoUser: { username: string; password: string } | null
  /** Whether users can register and then log in at once. */
  isRegistrationSimple: boolean
  /** Whether the page may link to /docs and /redoc. */
  hasApiDocs: boolean
  ttlMs: number
  /** Auth's clock in epoch milliseconds, so that the page does not depend on the clock of the user's machine. */
  now: number
}
