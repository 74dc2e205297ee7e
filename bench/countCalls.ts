// Preloaded into a Business under test: counts its calls to Auth from outside, through undici's diagnostics channel.
import { subscribe } from 'node:diagnostics_channel'

let calls = 0
subscribe('undici:request:create', () => calls++)
process.on('message', message => {
  if (message === 'calls') process.send?.({ calls })
})
