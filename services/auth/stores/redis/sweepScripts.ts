// The Lua scripts of the sweep; see library.ts for the content of a key.
import { script } from './scripts.ts'

/**
 * args: now, and the maximum number of tokens to examine and to remove; a single key with more tokens is still read
 * whole. Returns the positions of the unfinished keys; how many tokens of each kind, and of guests, are left in the
 * finished keys; and the removed tokens.
 */
export const sweepScript = script(`
local now, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local unfinished, left, removed, looked = {}, {0, 0, 0, 0}, {}, 0
for i, key in ipairs(KEYS) do
  local isDone = looked < most
  if isDone then
    local tokens, floors = readAll(key)
    local gone, kept = 0, {0, 0, 0, 0}
    looked = looked + #tokens
    for _, one in ipairs(tokens) do
      if isDead(one.t, floors, now) then
        if #removed == most then isDone = false break end
        gone = gone + 1
        redis.call('HDEL', key, one.rest, 'r' .. one.rest)
        removed[#removed + 1] = {i, one.rest, (one.t.isOver or one.t.expires <= now) and one.t.expires or 0, one.t.user == 0 and 1 or 0}
      else
        kept[one.t.kind] = kept[one.t.kind] + 1
        if one.t.user == 0 then kept[4] = kept[4] + 1 end
      end
    end
    for count = 1, isDone and 4 or 0 do left[count] = left[count] + kept[count] end
    -- Forget users without a token and without a floor.
    if #tokens == gone and next(floors) == nil then redis.call('DEL', key) end
  end
  if not isDone then unfinished[#unfinished + 1] = i end
end
return {unfinished, left, removed}
`)

/**
 * keys: the turn to sweep, and the counts of the last round. args: process, ms. Null if it is this process's turn now, for so
 * long; otherwise the published counts, or an empty list.
 */
export const sweepTurnScript = script(`
claim()
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then
  local counts = redis.call('HMGET', KEYS[2], 'round', 'sliding', 'fixed', 'singleUse', 'guests')
  return counts[1] and counts or {}
end
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return false
`)

/** keys: as above. args: process, ms to keep the counts, round, counts by kind, guests. Ends the turn of the process. */
export const sweepEndScript = script(`
claim()
if redis.call('HGET', KEYS[1], 'owner') == ARGV[1] then redis.call('HDEL', KEYS[1], 'owner') end
redis.call('HSET', KEYS[2], 'round', ARGV[3], 'sliding', ARGV[4], 'fixed', ARGV[5], 'singleUse', ARGV[6], 'guests', ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
`)
