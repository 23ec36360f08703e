-- Looks after the audit of some realms: says so in the chain if what a replica remembers of it is not there any more,
-- and drops what is too old or too much, as far as one script may.
--
-- ARGV  log, retention ms, most bytes of a realm, then for each realm:
--         realm, number and digest that the caller remembers (0: none), sealed entry that declares the loss ('': none)
-- Reply {'ok', then for each realm: {head number, digest, anchor number, digest, entries, 1 if there is more to drop}}
-- or {why}

local m = meta()
local closed = gate(m, ARGV[1])
if closed then return {closed} end
local retention, most, reply = tonumber(ARGV[2]), tonumber(ARGV[3]), {'ok'}
-- What this script may still drop of all realms: entries, large ones counted by their bytes.
local AT_ONCE, LARGE, left = 16, 4096, 512

local function lost(realm, number, digest)
  local head, known = audit_point(AUDITS, realm)
  if number == 0 then return false end
  if number > head then return true end
  if number == head then return digest ~= known end
  local anchor = audit_point(ANCHORS, realm)
  return number > anchor and audit_digest_at(realm, number) ~= digest
end

-- Numbers never come twice: the next one is behind both what is there and what was.
local function declare(realm, number, digest, sealed)
  local head, known = audit_point(AUDITS, realm)
  if head == 0 then
    set_audit_point(ANCHORS, realm, number, digest)
    known = digest
  end
  set_audit_point(AUDITS, realm, math.max(head, number), known)
  audit(realm, '0', '', sealed)
end

-- 1 if more is left to drop than this script may. Mostly nothing is: then one entry tells.
local function drop(realm)
  local stream, bytes = audit_stream(realm), tonumber(redis.call('HGET', BYTES, realm) or '0')
  local count = 1
  repeat
    local oldest, last = redis.call('XRANGE', stream, '-', '+', 'COUNT', count), nil
    for _, entry in ipairs(oldest) do
      if bytes <= most and now - tonumber(entry[2][2]) <= retention then break end
      local size = audit_size(entry[2][8])
      last, bytes, left = entry, bytes - size, left - math.ceil(size / LARGE)
    end
    if not last then return 0 end
    local number = tonumber(string.match(last[1], '^%d+'))
    set_audit_point(ANCHORS, realm, number, last[2][10])
    redis.call('XTRIM', stream, 'MINID', int(number + 1) .. '-0')
    redis.call('HSET', BYTES, realm, int(math.max(bytes, 0)))
    if last ~= oldest[count] then return 0 end
    count = AT_ONCE
  until left <= 0
  return 1
end

for i = 4, #ARGV, 4 do
  local realm, number, digest, sealed = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  if sealed ~= '' and lost(realm, number, digest) then declare(realm, number, digest, sealed) end
  local more = drop(realm)
  local head, known = audit_point(AUDITS, realm)
  local anchor, before = audit_point(ANCHORS, realm)
  reply[#reply + 1] = {int(head), known, int(anchor), before, redis.call('XLEN', audit_stream(realm)), more}
end
return reply
