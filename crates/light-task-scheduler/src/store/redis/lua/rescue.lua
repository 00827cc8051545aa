-- Declares suspects dead and adopts tasks without a living owner, oldest claim first.
--
-- ARGV from 7: replica, limit, how many suspects, for each its id, the beat that was seen, and 1 if it is proven dead
--   or 0; how many kinds, the kinds, how many queues, the queues (none: all)
-- Answers { why the replica may not rescue or '', the dead, tasks (see `tell`), of those that only their claimer ever
--   owned id and home of that }

local replica, limit, suspects = ARGV[first], tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
local after = first + 3 + 3 * suspects
-- The names of which there are so many at this place, how many, and the place behind them.
local function names(at)
  local known, count = {}, tonumber(ARGV[at])
  for place = at + 1, at + count do
    known[ARGV[place]] = true
  end
  return known, count, at + 1 + count
end
local kinds, _, queues_at = names(after)
local queues, queue_count = names(queues_at)

-- Whether the suspect is dead now.
local function declare_dead(id, seen, is_proven)
  local key = prefix .. 'rep:' .. id
  local row = call('HMGET', key, 'dead', 'beat', 'exp', 'ttl')
  if not row[1] or row[1] == '1' then
    return true
  elseif not is_proven and (row[2] ~= seen or not is_expired(row[3], row[4])) then
    return false
  end
  call('HSET', key, 'dead', 1)
  call('SREM', prefix .. 'live', id)
  hint.work = true
  return true
end

-- Adds the tasks of one owner that may be adopted.
local function orphans_of(owner, orphans)
  local ids = call('SMEMBERS', prefix .. 'owner:' .. owner)
  if #ids == 0 then
    call('SREM', prefix .. 'owners', owner)
  end
  fetch(ids)
  for at = 1, #ids do
    local t = record(ids[at])
    if kinds[kind_of(t.lane)] and (queue_count == 0 or queues[queue_of(t.lane)]) then
      orphans[#orphans + 1] = t
    end
  end
end

local refused, drains = not_living(replica)
if refused then
  return finish({ refused, {}, tell({}), {} })
elseif drains then
  return finish({ '', {}, tell({}), {} })
end
local dead = {}
for at = first + 3, after - 1, 3 do
  if declare_dead(ARGV[at], ARGV[at + 1], ARGV[at + 2] == '1') then
    dead[#dead + 1] = ARGV[at]
  end
end
local orphans = {}
if limit > 0 and next(kinds) then
  for _, owner in ipairs(call('SMEMBERS', prefix .. 'owners')) do
    if owner == '' or call('HGET', prefix .. 'rep:' .. owner, 'dead') ~= '0' then
      orphans_of(owner, orphans)
    end
  end
end
table.sort(orphans, function(a, b)
  if a[SA] ~= b[SA] then
    return a[SA] < b[SA]
  end
  return a[N] < b[N]
end)
local adopted, claimers = {}, {}
for at = 1, math.min(limit, #orphans) do
  local t = orphans[at]
  if t[OW] ~= NOBODY and t[R] == t[X] then
    claimers[#claimers + 1] = t.id
    claimers[#claimers + 1] = call('HGET', prefix .. 'rep:' .. t[OW], 'home') or ''
  end
  adopt(t, replica)
  adopted[at] = t.id
end
return finish({ '', dead, tell(adopted), claimers })
