-- Reads a part of a page of tasks, newest first.
--
-- ARGV from 5: insertion number below which to look ('' from the newest), most tasks, most bytes of payloads and
--   outputs, queue or '', kind or '', created from or '', created before or '', beginning of the id,
--   how many states, the states (none: any), then name and value of labels
-- Answers { insertion number to go on below, '' at the end, tasks (see `tell`) }

-- How many tasks one call looks at.
local LOOK_MAX = 2000

local before, most, bytes_max = ARGV[first], tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
local queue, kind = ARGV[first + 3], ARGV[first + 4]
local from, till = tonumber(ARGV[first + 5]), tonumber(ARGV[first + 6])
local id_prefix = ARGV[first + 7]
local state_count = tonumber(ARGV[first + 8])
local states, after = {}, first + 9 + state_count
for at = first + 9, after - 1 do
  states[tonumber(ARGV[at])] = true
end

-- The sorted sets that hold everything that can match: waiting and succeeded tasks have none of their own.
-- The running ones are in sets, which are never large.
local function sources()
  if state_count == 0 or states[1] or states[4] then
    return { 'all' }, {}
  end
  local sorted, sets = {}, {}
  for state in pairs(states) do
    if state ~= 2 then
      sorted[#sorted + 1] = 'state:' .. state
    elseif queue ~= '' then
      sets[#sets + 1] = 'running:' .. queue
    else
      for _, name in ipairs(call('SMEMBERS', prefix .. 'queues')) do
        sets[#sets + 1] = 'running:' .. name
      end
    end
  end
  return sorted, sets
end

local function has_labels(id)
  if after > #ARGV then
    return true
  end
  local labels = labels_of(id)
  for at = after, #ARGV, 2 do
    if labels[ARGV[at]] ~= ARGV[at + 1] then
      return false
    end
  end
  return true
end

local function matches(t)
  return string.sub(t.id, 1, #id_prefix) == id_prefix and (state_count == 0 or states[t[S]])
    and (queue == '' or queue_of(t.lane) == queue) and (kind == '' or kind_of(t.lane) == kind)
    and (not from or t[CA] >= from) and (not till or t[CA] < till) and has_labels(t.id)
end

-- The newest of all sources, at most LOOK_MAX; whether there may be more.
local function newest()
  local found, full = {}, false
  local top = before == '' and '+inf' or '(' .. before
  local sorted, sets = sources()
  for _, key in ipairs(sets) do
    local ids = call('SMEMBERS', prefix .. key)
    fetch(ids)
    for at = 1, #ids do
      local n = record(ids[at])[N]
      if before == '' or n < tonumber(before) then
        found[#found + 1] = { ids[at], n }
      end
    end
  end
  for _, key in ipairs(sorted) do
    local part = call('ZREVRANGEBYSCORE', prefix .. key, top, '-inf', 'WITHSCORES', 'LIMIT', 0, LOOK_MAX)
    full = full or #part == 2 * LOOK_MAX
    for at = 1, #part, 2 do
      found[#found + 1] = { part[at], tonumber(part[at + 1]) }
    end
  end
  table.sort(found, function(a, b) return a[2] > b[2] end)
  return found, full or #found > LOOK_MAX
end

local found, more = newest()
local ids, bytes, place = {}, 0, ''
-- Records are read in portions: a page rarely needs all that were found.
local PORTION = 100
for at = 1, #found do
  if at > LOOK_MAX or #ids == most or bytes > bytes_max then
    more = true
    break
  end
  if at % PORTION == 1 then
    local portion = {}
    for next = at, math.min(at + PORTION - 1, #found) do
      portion[#portion + 1] = found[next][1]
    end
    fetch(portion)
  end
  place = int(found[at][2])
  local t = record(found[at][1])
  if matches(t) then
    bytes = bytes + call('HSTRLEN', prefix .. 'spec', t.id)
    bytes = bytes + (t[RES] == 1 and call('HSTRLEN', prefix .. 'res', t.id) or 0)
    bytes = bytes + (t[DET] == 1 and call('HSTRLEN', detail_key(t.id), 'out') or 0)
    ids[#ids + 1] = t.id
  end
end
return { more and place or '', tell(ids) }
