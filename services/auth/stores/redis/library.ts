// What the Lua scripts have in common: the content of a key and the steps they take. The key `<prefix>{<tag>}` holds everything of
// a routing tag in a hash:
//   <ten characters, the rest of the id>   a token, packed according to `format`
//   r<the same>                            its lineage and the time of its last renewal, if it was renewed
//   u<n>, n<n>, f<n>                       id, name and floor of user n of this tag
//   a<n>                                   the user's authority, unless nothing was changed: version, 1 if paused, roles
// A script accesses only the keys passed to it, and the caller ensures that the keys of a call are on the same node.

/**
 * How many bytes of a token's SHA-256 are kept. 120 bits cannot be guessed, and a packed token stays below 64 bytes,
 * the largest value for which Redis uses its compact encoding of small hashes.
 */
export const hashBytes = 15

/** Stored instead of a log-in id if no log-in led to the token. */
export const noLogin = '----------'

export const library = `
local sliding, singleUse, ownLogin, ownRights = 1, 3, 2^31, 128
-- Kind (its position in tokenKinds, from 1), number of the user (0: guest), version, created, used, expires, absolute, ttl,
-- uses, hash; then the purpose. Few tokens have something before the purpose. With the highest bit of uses, ten characters: the
-- login, as the rest of an id, unless it is the usual one. With the highest bit of kind, '1' if the token is paused or '0' if not,
-- and its scope, which is empty if there is none. Older Latchkeys take both for part of the purpose and refuse the token. If a
-- call has found the token expired, expires is counted from created, which makes it earlier than any now.
local format = '>BBI4I6I6I6I6I6I4c${hashBytes}'

local function load(value)
  local kind, user, version, created, used, expires, absolute, ttl, count, hash, at = struct.unpack(format, value)
  local login = false
  if count >= ownLogin then
    count = count - ownLogin
    login, at = struct.unpack('c10', value, at)
  end
  local paused, scope = '0', ''
  if kind >= ownRights then
    kind = kind - ownRights
    paused, scope, at = struct.unpack('>c1I2c0', value, at)
  end
  local isOver = expires < created
  if isOver then expires = created + expires end
  return {kind = kind, user = user, version = version, created = created, used = used, expires = expires, absolute = absolute,
    ttl = ttl, count = count, hash = hash, login = login, purpose = string.sub(value, at), paused = paused, scope = scope,
    isOver = isOver}
end

local function save(key, rest, t)
  local count = t.count
  if t.login then count = count + ownLogin end
  local kind, rights = t.kind, ''
  if t.paused ~= '0' or t.scope ~= '' then
    kind = kind + ownRights
    rights = struct.pack('>c1I2c0', t.paused, #t.scope, t.scope)
  end
  local expires = t.isOver and t.expires - t.created or t.expires
  local packed = struct.pack(format, kind, t.user, t.version, t.created, t.used, expires, t.absolute, t.ttl, count, t.hash)
  redis.call('HSET', key, rest, packed .. (t.login or '') .. rights .. t.purpose)
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

-- The user's id, name, authority and floor. The first three are false for a guest.
local function userAt(key, number)
  if number == 0 then return false, false, false, 0 end
  local id, name, authority, floor = unpack(redis.call('HMGET', key, 'u' .. number, 'n' .. number, 'a' .. number, 'f' .. number))
  return id, name, authority, tonumber(floor or 0)
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

local function versionOf(authority)
  return tonumber(string.match(authority, '^%d+'))
end

-- The authority is kept if a later one is known.
local function setAuthority(key, number, authority)
  local known = redis.call('HGET', key, 'a' .. number)
  if not known or versionOf(known) < versionOf(authority) then redis.call('HSET', key, 'a' .. number, authority) end
end

local function isPaused(t, authority)
  return t.paused == '1' or (authority and string.match(authority, '^%d+ 1') ~= nil)
end

-- Whether the token has expired, now or for an earlier call. From then on no call admits it, however late it arrives.
local function isFoundExpired(key, rest, t, now)
  if not t.isOver and t.expires <= now then
    t.isOver = true
    save(key, rest, t)
  end
  return t.isOver
end

-- The token and its user's id, name and authority; nil if the token is refused.
local function admit(key, rest, hash, now, purpose)
  local value = redis.call('HGET', key, rest)
  if not value then return nil end
  local t = load(value)
  if t.hash ~= hash or isFoundExpired(key, rest, t, now) or t.purpose ~= purpose then return nil end
  local id, name, authority, floor = userAt(key, t.user)
  if t.version < floor or isPaused(t, authority) then return nil end
  return t, id, name, authority
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

local function answer(rest, t, id, name, authority)
  return {rest, t.kind, t.version, t.created, t.used, t.expires, t.absolute, t.ttl, t.count, t.purpose, id, name, t.login,
    t.scope, t.paused, authority}
end

-- Returns the tokens in the key, and the floors by the user's number. A user with an authority has at least the floor 0.
local function readAll(key)
  local all, tokens, floors = redis.call('HGETALL', key), {}, {}
  for i = 1, #all, 2 do
    local field = all[i]
    if #field == 10 then tokens[#tokens + 1] = {rest = field, t = load(all[i + 1])}
    else
      local first, number = string.sub(field, 1, 1), tonumber(string.sub(field, 2))
      if first == 'f' then floors[number] = tonumber(all[i + 1])
      elseif first == 'a' then floors[number] = floors[number] or 0 end
    end
  end
  return tokens, floors
end

local function isDead(t, floors, now)
  return t.isOver or t.expires <= now or t.version < (floors[t.user] or 0)
end
`
