// What the Lua scripts have in common: the content of a key and the steps they take. The key `<prefix>{<tag>}` holds everything of
// a routing tag in a hash:
//   <ten characters, the rest of the id>   a token, packed according to `format`
//   r<the same>                            its lineage and the time of its last renewal, if it was renewed
//   u<n>, n<n>, f<n>                       id, name and floor of user n of this tag
//   a<n>                                   the user's authority, unless nothing was changed: version, 1 if paused, roles, and
//                                          after a ; the rate, if there is one
//   b<n>                                   when the bucket of this rate is full, in microseconds, if it was ever used
// A script accesses only the keys passed to it, and the caller ensures that the keys of a call are on the same node.

/**
 * How many bytes of a token's SHA-256 are kept. 120 bits cannot be guessed, and a packed token stays below 64 bytes,
 * the largest value for which Redis uses its compact encoding of small hashes.
 */
export const hashBytes = 15

/** Stored instead of the rest of an id if there is no log-in, or no parent. */
export const noId = '----------'

export const library = `
local sliding, singleUse, ownLogin, ownRights = 1, 3, 2^31, 128
-- Kind (its position in tokenKinds, from 1), number of the user (0: guest), version, created, used, expires, absolute, ttl,
-- uses, hash; then the purpose. Few tokens have something before the purpose. With the highest bit of uses, ten characters: the
-- login, as the rest of an id, unless it is the usual one. With the highest bit of kind, '1' if the token is paused or '0' if not,
-- and its scope, which is empty if there is none. With '2' for '0' and '3' for '1', the limits follow: requests per minute and
-- burst, both 0 without a rate, when the bucket is full in microseconds, the uses left, 0 without such a limit, and how often the
-- operator has changed the token. With '6' and '7', the name follows the limits, empty if there is none, and the rest of the
-- parent's id or ten dashes. Older Latchkeys take all this for part of the purpose and refuse the token. If a call has found the
-- token expired, expires is counted from created, which makes it earlier than any now.
local format = '>BBI4I6I6I6I6I6I4c${hashBytes}'
local limitsFormat = '>I4I4I8I4I4'

-- The limits of a token that has none and was never changed. With 0 requests per minute there is no rate, and with 0 uses left
-- any number.
local noLimits = {perMinute = 0, burst = 0, fullAt = 0, usesLeft = 0, changes = 0}

local function load(value)
  local kind, user, version, created, used, expires, absolute, ttl, count, hash, at = struct.unpack(format, value)
  local login = false
  if count >= ownLogin then
    count = count - ownLogin
    login, at = struct.unpack('c10', value, at)
  end
  local flags, scope, limits, name, parent = 0, '', false, '', '${noId}'
  if kind >= ownRights then
    kind = kind - ownRights
    flags, scope, at = struct.unpack('>c1I2c0', value, at)
    flags = tonumber(flags)
    if flags > 1 then
      limits = {}
      limits.perMinute, limits.burst, limits.fullAt, limits.usesLeft, limits.changes, at = struct.unpack(limitsFormat, value, at)
    end
    if flags > 3 then name, parent, at = struct.unpack('>I1c0c10', value, at) end
  end
  local isOver = expires < created
  if isOver then expires = created + expires end
  return {kind = kind, user = user, version = version, created = created, used = used, expires = expires, absolute = absolute,
    ttl = ttl, count = count, hash = hash, login = login, purpose = string.sub(value, at), paused = tostring(flags % 2),
    scope = scope, limits = limits, name = name, parent = parent ~= '${noId}' and parent, isOver = isOver}
end

local function save(key, rest, t)
  local count = t.count
  if t.login then count = count + ownLogin end
  local kind, rights = t.kind, ''
  local isHeldByProgram = t.name ~= '' or t.parent
  local limits = t.limits or isHeldByProgram and noLimits
  if t.paused ~= '0' or t.scope ~= '' or limits then
    kind = kind + ownRights
    local flags = tonumber(t.paused) + (limits and 2 or 0) + (isHeldByProgram and 4 or 0)
    rights = struct.pack('>c1I2c0', tostring(flags), #t.scope, t.scope)
    if limits then
      local numbers = struct.pack(limitsFormat, limits.perMinute, limits.burst, limits.fullAt, limits.usesLeft, limits.changes)
      rights = rights .. numbers
    end
    if isHeldByProgram then rights = rights .. struct.pack('>I1c0c10', #t.name, t.name, t.parent or '${noId}') end
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

local function rateOf(authority)
  return string.match(authority, ';(.+)')
end

-- The authority is kept if a later one is known. The bucket of another rate is full.
local function setAuthority(key, number, authority)
  local known = redis.call('HGET', key, 'a' .. number)
  if known and versionOf(known) >= versionOf(authority) then return end
  redis.call('HSET', key, 'a' .. number, authority)
  if known and rateOf(known) ~= rateOf(authority) then redis.call('HDEL', key, 'b' .. number) end
end

-- Whether the token has expired, now or for an earlier call. From then on no call admits it, however late it arrives.
local function isFoundExpired(key, rest, t, now)
  if not t.isOver and t.expires <= now then
    t.isOver = true
    save(key, rest, t)
  end
  return t.isOver
end

-- The token that t was delegated from, dead or alive; false if there is none.
local function parentAt(key, t)
  if t.parentToken == nil then
    local value = t.parent and redis.call('HGET', key, t.parent)
    t.parentToken = value and load(value)
  end
  return t.parentToken
end

local function isOrphaned(key, t, floor, now)
  if not t.parent then return false end
  local parent = parentAt(key, t)
  return not parent or parent.isOver or parent.expires <= now or parent.version < floor
end

local function isPaused(t, authority)
  return t.paused == '1' or (authority and string.match(authority, '^%d+ 1') ~= nil)
end

-- The token and its user's id, name and authority; nil if the token is refused.
local function admit(key, rest, hash, now, purpose)
  local value = redis.call('HGET', key, rest)
  if not value then return nil end
  local t = load(value)
  if t.hash ~= hash or isFoundExpired(key, rest, t, now) or t.purpose ~= purpose then return nil end
  local id, name, authority, floor = userAt(key, t.user)
  if t.version < floor or isPaused(t, authority) then return nil end
  if t.parent then
    local parent = parentAt(key, t)
    if parent and isFoundExpired(key, t.parent, parent, now) then return nil end
    if isOrphaned(key, t, floor, now) or parent.paused == '1' then return nil end
  end
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

-- A rate that differs begins with a full bucket.
local function setLimits(t, perMinute, burst, usesLeft, changes)
  local known = t.limits or noLimits
  local isSameRate = perMinute == known.perMinute and burst == known.burst
  t.limits = {perMinute = perMinute, burst = burst, fullAt = isSameRate and known.fullAt or 0, usesLeft = usesLeft,
    changes = changes}
end

-- A bucket as in rates.ts: how long until it allows one more, and when it is full after that, in microseconds.
local function drawn(perMinute, burst, fullAt, now)
  local refill, from = math.ceil(60000000 / perMinute), math.max(fullAt, now * 1000)
  return math.max(0, from - now * 1000 + refill - burst * refill), from + refill
end

-- How long until the limits allow one more, in microseconds, and when their bucket is full after that.
local function drawnFrom(limits, now)
  if not limits or limits.perMinute == 0 then return 0, 0 end
  return drawn(limits.perMinute, limits.burst, limits.fullAt, now)
end

-- Takes a use from the limits of a token, and returns whether it was the last one.
local function takeUse(limits, fullAt)
  limits.fullAt = fullAt
  if limits.usesLeft == 0 then return false end
  limits.usesLeft = limits.usesLeft - 1
  return limits.usesLeft == 0
end

-- Takes a use from the limits of the token, its parent and its user. Returns how many ms it must wait; 0 if it need not.
local function take(key, t, authority, now, grace)
  local parent, rate = parentAt(key, t), authority and t.purpose == '' and rateOf(authority)
  local limits, limitsOfParent = t.limits, parent and parent.limits
  if not limits and not limitsOfParent and not rate then return 0 end
  local wait, fullAt = drawnFrom(limits, now)
  local waitOfParent, parentFullAt = drawnFrom(limitsOfParent, now)
  local waitOfUser, userFullAt = 0, 0
  if rate then
    local perMinute, burst = string.match(rate, '(%d+)/(%d+)')
    local known = tonumber(redis.call('HGET', key, 'b' .. t.user) or 0)
    waitOfUser, userFullAt = drawn(tonumber(perMinute), tonumber(burst), known, now)
  end
  wait = math.max(wait, waitOfParent, waitOfUser)
  if wait > 0 then return math.ceil(wait / 1000) end
  if limits then t.isUsedUp = takeUse(limits, fullAt) end
  if limitsOfParent then
    parent.isUsedUp = takeUse(limitsOfParent, parentFullAt)
    if parent.isUsedUp then drop(key, t.parent) else save(key, t.parent, parent) end
  end
  if rate then
    redis.call('HSET', key, 'b' .. t.user, string.format('%.0f', userFullAt))
    keep(key, math.ceil(userFullAt / 1000) - now + grace)
  end
  return 0
end

local function use(key, rest, t, now, grace)
  -- A call may arrive late, after one with a later time.
  if t.kind == sliding then t.expires = math.max(t.expires, math.min(now + t.ttl, t.absolute)) end
  t.used = now
  t.count = math.min(t.count + 1, ownLogin - 1)
  if t.kind == singleUse or t.isUsedUp then
    drop(key, rest)
  else
    save(key, rest, t)
    keep(key, t.expires - now + grace)
  end
end

local function answer(key, rest, t, id, name, authority)
  local limits, parent = t.limits or noLimits, parentAt(key, t)
  return {rest, t.kind, t.version, t.created, t.used, t.expires, t.absolute, t.ttl, t.count, t.purpose, id, name, t.login,
    t.scope, t.paused, authority, limits.perMinute, limits.burst, (limits.usesLeft > 0 or t.isUsedUp or false) and limits.usesLeft,
    limits.changes, t.name, t.parent, parent and parent.scope, parent and parent.name, parent and parent.isUsedUp and 1 or 0}
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
