-- How a record moves: `state::step` in Lua, for the scripts that change tasks. The conformance suite holds
-- both to the same answers.
--
-- The texts of failures that the store itself makes come from Rust, from 5 on:
--   ARGV[5] expired, ARGV[6] cancelled before it ran (both a failure as JSON); scripts count from `first`

local EXPIRED, CANCELLED_EARLY = ARGV[5], ARGV[6]
first = 7

-- How many unsuccessful attempts a task remembers.
local ATTEMPTS_MAX = 20

-- Adds a line to the history of attempts and cuts it at its bound.
local function remembered(history, line)
  history = (history or '') .. line .. '\n'
  local _, lines = string.gsub(history, '\n', '\n')
  for _ = ATTEMPTS_MAX + 1, lines do
    history = string.sub(history, string.find(history, '\n', 1, true) + 1)
  end
  return history
end

-- Appends the attempt to the history and forgets its run: into `set` and `gone`.
local function unsuccessful(t, kind, failure, set, gone)
  -- A busy executor says so again and again; that is no history worth keeping.
  if kind ~= 'busy' and t.ow then
    local row = call('HMGET', key_of(t.id), 'a', 'x', 'sa', 'at')
    local line = { row[1] or '0', row[2] or '0', t.ow, row[3] or now_text, now_text, failure }
    set.at = remembered(row[4] or nil, table.concat(line, ' '))
  end
  gone[#gone + 1] = 'h'
  gone[#gone + 1] = 'pg'
  set.f, set.fk = failure, kind
end

-- To a terminal state.
local function finished(t, state, set, gone)
  gone[#gone + 1] = 'u'
  set.fa = now_text
  save(t, state, set, gone)
end

local function complete(t, how, value, key)
  local set = {}
  if how == 'i' then
    set.ri = value
  else
    set.rr, set.gk = value, key
  end
  finished(t, '4', set, { 'out', 'h', 'f', 'fk', 'l' })
end

-- A task whose deadline has passed before it could run.
local function expire(t)
  finished(t, '5', { f = EXPIRED, fk = 'deadline' }, {})
end

-- A live replica takes a task over.
local function adopt(t, owner)
  local asked, reported = t.c, t.rx
  save(t, t.s, { ow = owner, r = int(tonumber(t.r or 0) + 1) }, { 'cl' })
  if t.s == '2' then
    if asked then
      call('SADD', prefix .. 'wish:' .. owner, t.id)
    end
    if reported then
      call('SADD', prefix .. 'post:' .. owner, t.id)
    end
  end
end
