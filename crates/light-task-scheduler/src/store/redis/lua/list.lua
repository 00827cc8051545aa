-- Reads a part of a page of tasks, newest first.
--
-- ARGV from 5: insertion number below which to look ('' from the newest), most tasks, most bytes of payloads and
--   outputs, queue or '', kind or '', created from or '', created before or '', beginning of the id,
--   how many states, the states (none: any), then name and value of labels
-- Answers { insertion number to go on below, '' at the end, tasks (see `tell`) }

-- How many tasks one call looks at.
local LOOK_MAX = 2000
-- How many pages of all tasks.
local PAGES_MAX = 3

local before, most, bytes_max = ARGV[first], tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
local queue, kind = ARGV[first + 3], ARGV[first + 4]
local from, till = tonumber(ARGV[first + 5]), tonumber(ARGV[first + 6])
local id_prefix = ARGV[first + 7]
local state_count = tonumber(ARGV[first + 8])
local states, after = {}, first + 9 + state_count
for at = first + 9, after - 1 do
  states[tonumber(ARGV[at])] = true
end

local top = before == '' and '+inf' or '(' .. before
local found, full = {}, false

-- Looks at everything; `bottom`: the lowest number that was looked at.
local bottom
local function find_all()
  local below = before == '' and seq + 1 or tonumber(before)
  local pages = call('ZREVRANGEBYSCORE', prefix .. 'pages', place_of(below - 1), '-inf', 'LIMIT', 0, PAGES_MAX + 1)
  for at = 1, math.min(#pages, PAGES_MAX) do
    local ids = call('LRANGE', prefix .. 'page:' .. pages[at], 0, -1)
    bottom = pages[at] * PAGE + 1
    for place = math.min(#ids, below - bottom), 1, -1 do
      if ids[place] ~= '' then
        found[#found + 1] = { ids[place], bottom + place - 1 }
      end
    end
  end
  full = #pages > PAGES_MAX
end

-- Looks at what an owner has, which is never much.
local function find_owned(owner)
  local ids = call('SMEMBERS', prefix .. 'owner:' .. owner)
  fetch(ids)
  for at = 1, #ids do
    local t = record(ids[at])
    if t[S] == 2 and (before == '' or t[N] < tonumber(before)) then
      found[#found + 1] = { ids[at], t[N] }
    end
  end
end

-- Looks at a state that is in a sorted set of its own.
local function find_in(state)
  local key = prefix .. 'state:' .. state
  local part = call('ZREVRANGEBYSCORE', key, top, '-inf', 'WITHSCORES', 'LIMIT', 0, LOOK_MAX)
  full = full or #part == 2 * LOOK_MAX
  for at = 1, #part, 2 do
    found[#found + 1] = { part[at], tonumber(part[at + 1]) }
  end
end

local function has_labels(t)
  if after > #ARGV then
    return true
  end
  local labels = labels_of(t)
  for at = after, #ARGV, 2 do
    if labels[ARGV[at]] ~= ARGV[at + 1] then
      return false
    end
  end
  return true
end

local function matches(t)
  return sub(t.id, 1, #id_prefix) == id_prefix and (state_count == 0 or states[t[S]])
    and (queue == '' or queue_of(t.lane) == queue) and (kind == '' or kind_of(t.lane) == kind)
    and (not from or t[CA] >= from) and (not till or t[CA] < till) and has_labels(t)
end

-- The newest of all that can match, at most LOOK_MAX: waiting and succeeded tasks are in no order of their own.
if state_count == 0 or states[1] or states[4] then
  find_all()
else
  for state in pairs(states) do
    if state ~= 2 then
      find_in(state)
    else
      for _, owner in ipairs(call('SMEMBERS', prefix .. 'owners')) do
        find_owned(owner)
      end
    end
  end
  table.sort(found, function(a, b) return a[2] > b[2] end)
end

local more, broken = full or #found > LOOK_MAX, false
local ids, bytes, place = {}, 0, ''
-- Records are read in portions: a page rarely needs all that were found.
local PORTION = 100
for at = 1, #found do
  if at > LOOK_MAX or #ids == most or bytes > bytes_max then
    more, broken = true, true
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
    bytes = bytes + #t.spec + (t[SEP] == 1 and call('HSTRLEN', prefix .. 'spec', t.id) or 0)
    bytes = bytes + (t[RES] == 1 and call('HSTRLEN', prefix .. 'res', t.id) or 0)
    bytes = bytes + (t[DET] == 1 and call('HSTRLEN', detail_key(t.id), 'out') or 0)
    ids[#ids + 1] = t.id
  end
end
if full and not broken then
  place = bottom and int(bottom) or place
end
return { more and place or '', tell(ids) }
