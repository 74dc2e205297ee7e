// The Lua scripts, each an atomic step in Redis. The key `<prefix>{<tag>}` holds everything of a routing tag in a hash:
//   <ten characters, the rest of the id>   a token, packed according to `format`
//   r<the same>                            its lineage and the time of its last renewal, if it was renewed
//   u<n>, n<n>, f<n>                       id, name and floor of user n of this tag
// A script accesses only the keys passed to it, and the caller ensures that the keys of a call are on the same node.
import { hash } from 'node:crypto'

export interface Script {
  text: string
  sha1: string
}

/**
 * How many bytes of a token's SHA-256 are kept. 120 bits cannot be guessed, and a packed token stays below 64 bytes,
 * the largest value for which Redis uses its compact encoding of small hashes.
 */
export const hashBytes = 15

/** Stored instead of a log-in id if no log-in led to the token. */
export const noLogin = '----------'

const library = `
local sliding, singleUse, ownLogin = 1, 3, 2^31
-- Kind (its position in tokenKinds, from 1), number of the user (0: guest), version, created, used, expires, absolute, ttl,
-- uses, hash; then the purpose. If the highest bit of uses is set, ten characters precede the purpose: the login, as the rest
-- of an id. Most tokens have the usual login and omit it. Older Latchkeys take it for part of the purpose and refuse the token.
-- If a call has found the token expired, expires is counted from created, which makes it earlier than any now.
local format = '>BBI4I6I6I6I6I6I4c${hashBytes}'

local function load(value)
  local kind, user, version, created, used, expires, absolute, ttl, count, hash, at = struct.unpack(format, value)
  local login = false
  if count >= ownLogin then
    count = count - ownLogin
    login, at = struct.unpack('c10', value, at)
  end
  local isOver = expires < created
  if isOver then expires = created + expires end
  return {kind = kind, user = user, version = version, created = created, used = used, expires = expires,
    absolute = absolute, ttl = ttl, count = count, hash = hash, login = login, purpose = string.sub(value, at), isOver = isOver}
end

local function save(key, rest, t)
  local count = t.count
  if t.login then count = count + ownLogin end
  local expires = t.isOver and t.expires - t.created or t.expires
  local packed = struct.pack(format, t.kind, t.user, t.version, t.created, t.used, expires, t.absolute, t.ttl, count, t.hash)
  redis.call('HSET', key, rest, packed .. (t.login or '') .. t.purpose)
end

-- Redis, by its own clock, keeps the key for at least this long: until everything in it is dead.
local function keep(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end

-- A write that changes nothing, before anything is read. A replica, whose data may be old, refuses it. After a write, Redis
-- lets the script continue even if memory is full, which is safe because extending and revoking need no more memory.
local function claim()
  redis.call('HDEL', KEYS[1], '')
end

-- The user's id and name; false for a guest.
local function userAt(key, number)
  if number == 0 then return false, false end
  return unpack(redis.call('HMGET', key, 'u' .. number, 'n' .. number))
end

-- The number of this user, and whether the user is already in the key.
local function numberOf(key, id)
  local number = 1
  while true do
    local known = redis.call('HGET', key, 'u' .. number)
    if not known then return number, false end
    if known == id then return number, true end
    number = number + 1
  end
end

local function floorOf(key, number)
  return number > 0 and tonumber(redis.call('HGET', key, 'f' .. number) or 0) or 0
end

-- Whether the token has expired, now or for an earlier call. From then on no call admits it, however late it arrives.
local function isFoundExpired(key, rest, t, now)
  if not t.isOver and t.expires <= now then
    t.isOver = true
    save(key, rest, t)
  end
  return t.isOver
end

local function admit(key, rest, hash, now, purpose)
  local value = redis.call('HGET', key, rest)
  if not value then return nil end
  local t = load(value)
  if t.hash ~= hash or isFoundExpired(key, rest, t, now) or t.purpose ~= purpose then return nil end
  if t.version < floorOf(key, t.user) then return nil end
  return t
end

local function isSession(t)
  return t.kind == sliding and t.purpose == '' and t.user > 0
end

-- Lineage and time of the last renewal; nil for a token that was never renewed.
local function renewalOf(key, rest)
  local value = redis.call('HGET', key, 'r' .. rest)
  if not value then return nil end
  return struct.unpack('>c${hashBytes}I6', value)
end

-- Deletes the token. Deletes the key too if nothing is left in it but one user without a floor.
local function drop(key, rest)
  redis.call('HDEL', key, rest, 'r' .. rest)
  if redis.call('HLEN', key) == 2 and redis.call('HEXISTS', key, 'n1') == 1 then redis.call('DEL', key) end
end

local function use(key, rest, t, now, grace)
  -- A call may arrive late, after one with a later time.
  if t.kind == sliding then t.expires = math.max(t.expires, math.min(now + t.ttl, t.absolute)) end
  t.used = now
  t.count = math.min(t.count + 1, ownLogin - 1)
  if t.kind == singleUse then
    drop(key, rest)
  else
    save(key, rest, t)
    keep(key, t.expires - now + grace)
  end
end

local function answer(rest, t, id, name)
  return {rest, t.kind, t.version, t.created, t.used, t.expires, t.absolute, t.ttl, t.count, t.purpose, id, name, t.login}
end

-- Returns the tokens in the key, and the floors by the user's number.
local function readAll(key)
  local all, tokens, floors = redis.call('HGETALL', key), {}, {}
  for i = 1, #all, 2 do
    local field = all[i]
    if #field == 10 then tokens[#tokens + 1] = {rest = field, t = load(all[i + 1])}
    elseif string.sub(field, 1, 1) == 'f' then floors[tonumber(string.sub(field, 2))] = tonumber(all[i + 1]) end
  end
  return tokens, floors
end

local function isDead(t, floors, now)
  return t.isOver or t.expires <= now or t.version < (floors[t.user] or 0)
end
`

export function script(body: string): Script {
  const text = library + body
  return { text, sha1: hash('sha1', text, 'hex') }
}

/** keys: one per ref. args: now, purpose, 'touch', 'touchSession' or 'look', grace in ms, then rest and hash of each ref. */
export const touchScript = script(`
local now, purpose, mode, grace = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local answers = {}
claim()
for i, key in ipairs(KEYS) do
  local rest = ARGV[3 + 2 * i]
  local t = admit(key, rest, ARGV[4 + 2 * i], now, purpose)
  if t and mode == 'touchSession' and not isSession(t) then t = nil end
  local id, name = userAt(key, t and t.user or 0)
  if t and mode ~= 'look' then use(key, rest, t, now, grace) end
  answers[i] = t and answer(rest, t, id, name) or false
end
return answers
`)

/**
 * args: now, grace, perUser, room, rest, hash, kind, purpose, userId, username, version, created, used, expires,
 * absolute, ttl, uses, login or ''.
 */
export const insertScript = script(`
local key, now, grace, perUser, room = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local rest, userId, username, version = ARGV[5], ARGV[9], ARGV[10], tonumber(ARGV[11])
local number, evicted = 0, false
if userId ~= '' then
  number = numberOf(key, userId)
  if version < floorOf(key, number) then return 'ended' end
  -- The number is one byte. Among a billion users about seventy share a tag.
  if number > 255 then return 'full' end
end
if redis.call('HEXISTS', key, rest) == 1 then return 'taken' end
if number > 0 then
  local tokens, floors = readAll(key)
  local live, oldest = 0, nil
  for _, one in ipairs(tokens) do
    local t = one.t
    if t.user == number and not isDead(t, floors, now) then
      live = live + 1
      local isOlder = not oldest or t.created < oldest.t.created or (t.created == oldest.t.created and one.rest < oldest.rest)
      if t.kind == sliding and t.purpose == '' and isOlder then oldest = one end
    end
  end
  if live >= perUser then
    if not oldest or room < 0 then return 'full' end
    evicted = oldest.rest
  end
end
if not evicted and room < 1 then return 'full' end
-- The first write adds data: if memory is full, the script ends here and nothing has changed.
save(key, rest, {kind = tonumber(ARGV[7]), user = number, version = version, created = tonumber(ARGV[12]),
  used = tonumber(ARGV[13]), expires = tonumber(ARGV[14]), absolute = tonumber(ARGV[15]), ttl = tonumber(ARGV[16]),
  count = tonumber(ARGV[17]), hash = ARGV[6], login = ARGV[18] ~= '' and ARGV[18], purpose = ARGV[8]})
if number > 0 then redis.call('HSET', key, 'u' .. number, userId, 'n' .. number, username) end
if evicted then redis.call('HDEL', key, evicted, 'r' .. evicted) end
keep(key, tonumber(ARGV[14]) - now + grace)
return {evicted or ''}
`)

/** args: now, grace, rest, hash, new hash, lineage. */
export const renewScript = script(`
local key, now, rest = KEYS[1], tonumber(ARGV[1]), ARGV[3]
claim()
local t = admit(key, rest, ARGV[4], now, '')
if not t or t.kind ~= sliding then return false end
t.hash = ARGV[5]
use(key, rest, t, now, tonumber(ARGV[2]))
redis.call('HSET', key, 'r' .. rest, struct.pack('>c${hashBytes}I6', ARGV[6], now))
return answer(rest, t, userAt(key, t.user))
`)

/** args: rest, now, user id. Deletes only a live session of this user. */
export const deleteOwnScript = script(`
local key, rest, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
claim()
local value = redis.call('HGET', key, rest)
if not value then return false end
local t = load(value)
if not isSession(t) or isFoundExpired(key, rest, t, now) or t.version < floorOf(key, t.user) then return false end
local id, name = userAt(key, t.user)
if id ~= ARGV[3] then return false end
drop(key, rest)
return answer(rest, t, id, name)
`)

/** args: rest, and the required hash or '' for any. */
export const deleteScript = script(`
local key, rest, hash = KEYS[1], ARGV[1], ARGV[2]
claim()
local value = redis.call('HGET', key, rest)
if not value then return false end
local t = load(value)
if hash ~= '' and t.hash ~= hash then return false end
local gone = answer(rest, t, userAt(key, t.user))
drop(key, rest)
return gone
`)

/** args: rest, lineage, and the instant after which the token must not have been renewed. */
export const deleteRenewedScript = script(`
local key, rest = KEYS[1], ARGV[1]
claim()
local value = redis.call('HGET', key, rest)
local lineage, renewedAt = renewalOf(key, rest)
if not value or lineage ~= ARGV[2] or renewedAt > tonumber(ARGV[3]) then return false end
local t = load(value)
local gone = answer(rest, t, userAt(key, t.user))
drop(key, rest)
return gone
`)

/** args: userId, version, rest of the token to keep or '', the minimum lifetime of the floor in ms. */
export const raiseFloorScript = script(`
local key, userId, version, kept = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
claim()
local number, isKnown = numberOf(key, userId)
if not isKnown then redis.call('HSET', key, 'u' .. number, userId) end
local floor = floorOf(key, number)
local value = kept ~= '' and redis.call('HGET', key, kept)
if value then
  local t = load(value)
  if t.user == number and t.version >= floor and t.version < version then
    t.version = version
    save(key, kept, t)
  end
end
if version > floor then redis.call('HSET', key, 'f' .. number, version) end
keep(key, tonumber(ARGV[4]))
return 1
`)

/** args: userId, now. */
export const listScript = script(`
local key, now = KEYS[1], tonumber(ARGV[2])
claim()
local number = numberOf(key, ARGV[1])
local id, name = userAt(key, number)
local tokens, floors = readAll(key)
local live = {}
for _, one in ipairs(tokens) do
  local isOwn = one.t.user == number and not isFoundExpired(key, one.rest, one.t, now)
  if isOwn and not isDead(one.t, floors, now) then live[#live + 1] = answer(one.rest, one.t, id, name) end
end
return live
`)

/**
 * args: rest, hash, now. Returns whether the token is below the floor (1 or 0), its expiry, whether it has expired (1 or 0), and
 * its purpose. If the hash differs, returns only the time of the last renewal, or false if it was never renewed. False if there is no token.
 */
export const explainScript = script(`
local value = redis.call('HGET', KEYS[1], ARGV[1])
if not value then return false end
local t = load(value)
if t.hash ~= ARGV[2] then
  local lineage, renewedAt = renewalOf(KEYS[1], ARGV[1])
  return lineage and {renewedAt}
end
local isOver = t.isOver or t.expires <= tonumber(ARGV[3])
return {t.version < floorOf(KEYS[1], t.user) and 1 or 0, t.expires, isOver and 1 or 0, t.purpose}
`)

/** keys: any. args: now. Returns the live tokens of all keys, each with the position of its key, counted from 1. */
export const pageScript = script(`
local now = tonumber(ARGV[1])
local found = {}
for i, key in ipairs(KEYS) do
  local tokens, floors = readAll(key)
  for _, one in ipairs(tokens) do
    if not isDead(one.t, floors, now) then
      found[#found + 1] = {i, answer(one.rest, one.t, userAt(key, one.t.user))}
    end
  end
end
return found
`)
