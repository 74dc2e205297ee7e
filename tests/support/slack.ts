// How much later than promised a test may see something: what a slow machine adds that runs other tests at the same time.

export const slackMs = 1000
