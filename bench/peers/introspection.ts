// A service that introspects the token of each request at the provider (RFC 7662), over connections that it keeps.
import express from 'express'
import { Pool } from 'undici'
import { greeting, serve } from './serve.ts'

const { PROVIDER_URL = '', CLIENT_ID, CLIENT_SECRET } = process.env
const provider = new Pool(PROVIDER_URL, { connections: 64 })
const headers = {
  authorization: `Basic ${Buffer.from(`${CLIENT_ID}:${CLIENT_SECRET}`).toString('base64')}`,
  'content-type': 'application/x-www-form-urlencoded',
}

const app = express()
app.get('/data', async (req, res) => {
  const body = new URLSearchParams({ token: req.headers.authorization?.slice(7) ?? '' }).toString()
  const answer = await provider.request({ method: 'POST', path: '/token/introspection', headers, body })
  const { active } = (await answer.body.json()) as { active?: boolean }
  if (active !== true) return void res.status(401).end()
  res.json(greeting)
})
serve(app)
