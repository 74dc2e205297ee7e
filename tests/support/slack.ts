// How much later than promised something may happen in a test, on a slow machine that runs other tests at the same
// time.

export const slackMs = 1000
