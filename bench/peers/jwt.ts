// JWTs that fast-jwt verifies in the service. They last 15 minutes, so that a stolen one does not last longer.

import express from 'express'
import { createSigner, createVerifier } from 'fast-jwt'
import { greeting, serve } from './serve.ts'

const key = 'bench-secret-0123456789abcdefghijklmnopqrstuv'
const sign = createSigner({ key, algorithm: 'HS256', iss: 'latchkey', aud: 'business', expiresIn: 900_000 })
const verify = createVerifier({ key, algorithms: ['HS256'], allowedIss: 'latchkey', allowedAud: 'business' })

const app = express()
app.post('/login', (_req, res) => void res.json({ token: sign({ sub: 'demo', username: 'demo@example.com' }) }))
app.get('/data', (req, res) => {
  try {
    verify(req.headers.authorization?.slice(7) ?? '')
  } catch {
    return void res.status(401).end()
  }
  res.json(greeting)
})
serve(app)
