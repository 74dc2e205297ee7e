// A session table in SQLite or PostgreSQL, read and extended for each request. The table has hashes of the tokens, not the
// tokens, and one statement checks and extends.
import { createHash, randomBytes } from 'node:crypto'
import { DatabaseSync } from 'node:sqlite'
import express from 'express'
import pg from 'pg'
import { greeting, serve } from './serve.ts'

interface Sessions {
  insert(id: string, expiresAt: number): unknown
  /** Extends the session and returns its user, or nothing. */
  touch(id: string, now: number, expiresAt: number): Promise<unknown> | unknown
  remove(id: string): unknown
}

const ttlMs = 7_200_000
const table = 'create table sessions (id text primary key, username text not null, expires_at bigint not null)'

function openSqlite(file: string): Sessions {
  const database = new DatabaseSync(file)
  database.exec(`pragma journal_mode = wal; pragma synchronous = normal; ${table}`)
  const insert = database.prepare("insert into sessions values (?, 'demo@example.com', ?)")
  const touch = database.prepare(
    'update sessions set expires_at = ? where id = ? and expires_at > ? returning username',
  )
  const remove = database.prepare('delete from sessions where id = ?')
  return {
    insert: (id, expiresAt) => insert.run(id, expiresAt),
    touch: (id, now, expiresAt) => touch.get(expiresAt, id, now),
    remove: id => remove.run(id),
  }
}

async function openPostgres(url: string): Promise<Sessions> {
  // Connections stay open, because the bench counts the CPU time of the processes behind them.
  const pool = new pg.Pool({ connectionString: url, application_name: 'latchkey-bench-peer', idleTimeoutMillis: 0 })
  await pool.query(table)
  const touch = {
    name: 'touch',
    text: 'update sessions set expires_at = $1 where id = $2 and expires_at > $3 returning username',
  }
  return {
    insert: (id, expiresAt) => pool.query("insert into sessions values ($1, 'demo@example.com', $2)", [id, expiresAt]),
    touch: async (id, now, expiresAt) => (await pool.query({ ...touch, values: [expiresAt, id, now] })).rows[0],
    remove: id => pool.query('delete from sessions where id = $1', [id]),
  }
}

const { DATABASE_FILE, DATABASE_URL = '' } = process.env
const sessions = DATABASE_FILE ? openSqlite(DATABASE_FILE) : await openPostgres(DATABASE_URL)
const idOf = (authorization = '') => createHash('sha256').update(authorization.slice(7)).digest('base64url')

const app = express()
app.post('/login', async (_req, res) => {
  const token = randomBytes(32).toString('base64url')
  await sessions.insert(idOf(`Bearer ${token}`), Date.now() + ttlMs)
  res.json({ token })
})
app.post('/logout', async (req, res) => {
  await sessions.remove(idOf(req.headers.authorization))
  res.json({})
})
app.get('/data', async (req, res) => {
  const now = Date.now()
  const session = await sessions.touch(idOf(req.headers.authorization), now, now + ttlMs)
  if (!session) return void res.status(401).end()
  res.json(greeting)
})
serve(app)
