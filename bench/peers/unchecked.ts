// Express without a check: what the peers cost without theirs. Also the service behind nginx.
import express from 'express'
import { greeting, serve } from './serve.ts'

const app = express()
app.get('/data', (_req, res) => void res.json(greeting))
serve(app)
