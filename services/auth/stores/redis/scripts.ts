// The Lua scripts, each an atomic step in Redis. library.ts describes the keys.
import { type Script, scriptOf } from './connection.ts'
import { hashBytes, library } from './library.ts'

export function script(body: string): Script {
  return scriptOf(library + body)
}

/**
 * keys: one per ref. args: now, purpose, 'touch', 'touchSession' or 'look', grace in ms, then rest and hash of each ref. The answer
 * for a token that is beyond its limits is the milliseconds to wait.
 */
export const touchScript = script(`
local now, purpose, mode, grace = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local answers = {}
claim()
for i, key in ipairs(KEYS) do
  local rest = ARGV[3 + 2 * i]
  local t, id, name, authority = admit(key, rest, ARGV[4 + 2 * i], now, purpose)
  if t and mode == 'touchSession' and not isSession(t) then t = nil end
  local wait = t and mode == 'touch' and take(key, t, authority, now, grace) or 0
  if wait > 0 then answers[i] = wait
  else
    if t and mode ~= 'look' then use(key, rest, t, now, grace) end
    answers[i] = t and answer(key, rest, t, id, name, authority) or false
  end
end
return answers
`)

/**
 * args: now, grace, perUser, room, rest, hash, kind, purpose, userId, username, version, created, used, expires,
 * absolute, ttl, uses, login or '', scope, paused, authority or '', requests per minute, burst, uses left, name or '', rest of the
 * parent or '', how many of the user's tokens programs may hold.
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
local tokenName, parent, mayHold = ARGV[25], ARGV[26], tonumber(ARGV[27])
if parent ~= '' and isOrphaned(key, {parent = parent}, floorOf(key, number), now) then return 'ended' end
if redis.call('HEXISTS', key, rest) == 1 then return 'taken' end
if number > 0 then
  local tokens, floors = readAll(key)
  local live, held, oldest, oldestChild = 0, 0, nil, nil
  local function isOlder(one, known)
    return not known or one.t.created < known.t.created or (one.t.created == known.t.created and one.rest < known.rest)
  end
  for _, one in ipairs(tokens) do
    local t = one.t
    if t.user == number and not isDead(t, floors, now) then
      live = live + 1
      if t.name ~= '' or t.parent then held = held + 1 end
      if t.parent and isOlder(one, oldestChild) then oldestChild = one end
      if t.kind == sliding and t.purpose == '' and one.rest ~= parent and isOlder(one, oldest) then oldest = one end
    end
  end
  if (tokenName ~= '' or parent ~= '') and held >= mayHold then
    if not oldestChild or room < 0 then return 'full' end
    evicted = oldestChild.rest
  elseif live >= perUser then
    if not oldest or room < 0 then return 'full' end
    evicted = oldest.rest
  end
end
if not evicted and room < 1 then return 'full' end
local t = {kind = tonumber(ARGV[7]), user = number, version = version, created = tonumber(ARGV[12]),
  used = tonumber(ARGV[13]), expires = tonumber(ARGV[14]), absolute = tonumber(ARGV[15]), ttl = tonumber(ARGV[16]),
  count = tonumber(ARGV[17]), hash = ARGV[6], login = ARGV[18] ~= '' and ARGV[18], purpose = ARGV[8], scope = ARGV[19],
  paused = ARGV[20], name = tokenName, parent = parent ~= '' and parent}
if ARGV[22] ~= '0' or ARGV[24] ~= '0' then setLimits(t, tonumber(ARGV[22]), tonumber(ARGV[23]), tonumber(ARGV[24]), 0) end
-- The first write adds data: if memory is full, the script ends here and nothing has changed.
save(key, rest, t)
if number > 0 then redis.call('HSET', key, 'u' .. number, userId, 'n' .. number, username) end
if ARGV[21] ~= '' then setAuthority(key, number, ARGV[21]) end
if evicted then redis.call('HDEL', key, evicted, 'r' .. evicted) end
keep(key, tonumber(ARGV[14]) - now + grace)
return {evicted or ''}
`)

/** args: now, grace, rest, hash, new hash, lineage. */
export const renewScript = script(`
local key, now, rest = KEYS[1], tonumber(ARGV[1]), ARGV[3]
claim()
local t, id, name, authority = admit(key, rest, ARGV[4], now, '')
if not t or t.kind ~= sliding then return false end
t.hash = ARGV[5]
use(key, rest, t, now, tonumber(ARGV[2]))
redis.call('HSET', key, 'r' .. rest, struct.pack('>c${hashBytes}I6', ARGV[6], now))
return answer(key, rest, t, id, name, authority)
`)

/** args: rest, now, user id. Deletes only a live session of this user. */
export const deleteOwnScript = script(`
local key, rest, now = KEYS[1], ARGV[1], tonumber(ARGV[2])
claim()
local value = redis.call('HGET', key, rest)
if not value then return false end
local t = load(value)
local id, name, authority, floor = userAt(key, t.user)
if not isSession(t) or isFoundExpired(key, rest, t, now) or t.version < floor or id ~= ARGV[3] then return false end
drop(key, rest)
return answer(key, rest, t, id, name, authority)
`)

/** args: rest, and the required hash or '' for any. */
export const deleteScript = script(`
local key, rest, hash = KEYS[1], ARGV[1], ARGV[2]
claim()
local value = redis.call('HGET', key, rest)
if not value then return false end
local t = load(value)
if hash ~= '' and t.hash ~= hash then return false end
local gone = answer(key, rest, t, userAt(key, t.user))
drop(key, rest)
return gone
`)

/** args: rest, lineage, and the instant after which the token must not have been renewed. */
export const findRenewedScript = script(`
local key, rest = KEYS[1], ARGV[1]
claim()
local value = redis.call('HGET', key, rest)
local lineage, renewedAt = renewalOf(key, rest)
if not value or lineage ~= ARGV[2] or renewedAt > tonumber(ARGV[3]) then return false end
local t = load(value)
return answer(key, rest, t, userAt(key, t.user))
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

/** args: userId, authority, the minimum lifetime of the authority in ms. */
export const setAuthorityScript = script(`
local key, userId = KEYS[1], ARGV[1]
claim()
local number, isKnown = numberOf(key, userId)
if not isKnown then redis.call('HSET', key, 'u' .. number, userId) end
setAuthority(key, number, ARGV[2])
keep(key, tonumber(ARGV[3]))
return 1
`)

/**
 * args: rest, now, '1', '0' or '' to leave `paused`, '=' and the scope or '' to leave it, requests per minute or '' to leave the
 * rate, burst, uses left or '' to leave them, '=' and the name or '' to leave it, 'unpaused' to leave a paused token as it is.
 */
export const changeScript = script(`
local key, rest = KEYS[1], ARGV[1]
claim()
local value = redis.call('HGET', key, rest)
if not value then return false end
local t = load(value)
local id, name, authority, floor = userAt(key, t.user)
local now = tonumber(ARGV[2])
if t.isOver or t.expires <= now or t.version < floor or isOrphaned(key, t, floor, now) then return false end
if ARGV[9] == 'unpaused' and t.paused == '1' then return false end
if ARGV[3] ~= '' then t.paused = ARGV[3] end
if ARGV[4] ~= '' then t.scope = string.sub(ARGV[4], 2) end
if ARGV[8] ~= '' then t.name = string.sub(ARGV[8], 2) end
local known = t.limits or noLimits
local perMinute, burst = tonumber(ARGV[5]) or known.perMinute, tonumber(ARGV[6]) or known.burst
setLimits(t, perMinute, burst, tonumber(ARGV[7]) or known.usesLeft, known.changes + 1)
save(key, rest, t)
return answer(key, rest, t, id, name, authority)
`)

/**
 * args: rest, paused, scope, requests per minute, burst, uses left, changes, name: the token after a change. Does nothing if the server
 * knows this change or a later one, perhaps of another Auth.
 */
export const repeatChangeScript = script(`
local key, rest, changes = KEYS[1], ARGV[1], tonumber(ARGV[7])
claim()
local value = redis.call('HGET', key, rest)
if not value then return false end
local t = load(value)
if (t.limits or noLimits).changes >= changes then return false end
t.paused, t.scope, t.name = ARGV[2], ARGV[3], ARGV[8]
setLimits(t, tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), changes)
save(key, rest, t)
return 1
`)

/** args: userId, now. */
export const listScript = script(`
local key, now = KEYS[1], tonumber(ARGV[2])
claim()
local number = numberOf(key, ARGV[1])
local id, name, authority, floor = userAt(key, number)
local tokens, floors = readAll(key)
local live = {}
for _, one in ipairs(tokens) do
  local isOwn = one.t.user == number and not isFoundExpired(key, one.rest, one.t, now)
  if isOwn and not isDead(one.t, floors, now) and not isOrphaned(key, one.t, floor, now) then live[#live + 1] = answer(key, one.rest, one.t, id, name, authority) end
end
return live
`)

/**
 * args: rest, hash, now. Returns whether the token is below the floor (1 or 0), its expiry, whether it has expired (1 or 0), its
 * purpose, whether it is paused (1 or 0), and whether its parent has ended (1 or 0). If the hash differs, returns only the time of the last renewal, or false if it was
 * never renewed. False if there is no token.
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
local _, _, authority, floor = userAt(KEYS[1], t.user)
local parent = parentAt(KEYS[1], t)
local isAnyPaused = isPaused(t, authority) or (parent and parent.paused == '1')
return {t.version < floor and 1 or 0, t.expires, isOver and 1 or 0, t.purpose, isAnyPaused and 1 or 0,
  isOrphaned(KEYS[1], t, floor, tonumber(ARGV[3])) and 1 or 0}
`)

/** keys: any. args: now. Returns the live tokens of all keys, each with the position of its key, counted from 1. */
export const pageScript = script(`
local now = tonumber(ARGV[1])
local found = {}
for i, key in ipairs(KEYS) do
  local tokens, floors = readAll(key)
  for _, one in ipairs(tokens) do
    local parent = parentAt(key, one.t)
    local isOrphan = one.t.parent and (not parent or isDead(parent, floors, now))
    if not isOrphan and not isDead(one.t, floors, now) then
      found[#found + 1] = {i, answer(key, one.rest, one.t, userAt(key, one.t.user))}
    end
  end
end
return found
`)
