-- Looks after the audit of some realms: says so in the chain if what a replica remembers of it is not there any more,
-- and drops what is too old or too much.
--
-- ARGV  log, retention ms, most bytes of a realm, then for each realm:
--         realm, number and digest that the caller remembers (0: none), sealed entry that declares the loss ('': none)
-- Reply {'ok', then for each realm: {head number, digest, anchor number, digest, entries}} or {why}

local m = meta()
local closed = gate(m, ARGV[1])
if closed then return {closed} end
local retention, most, reply = tonumber(ARGV[2]), tonumber(ARGV[3]), {'ok'}
local ROUNDS, AT_ONCE = 16, 64

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

local function drop(realm)
  local stream, bytes = audit_stream(realm), tonumber(redis.call('HGET', BYTES, realm) or '0')
  for _ = 1, ROUNDS do
    local oldest, last = redis.call('XRANGE', stream, '-', '+', 'COUNT', AT_ONCE), nil
    for _, entry in ipairs(oldest) do
      if bytes <= most and now - tonumber(entry[2][2]) <= retention then break end
      last, bytes = entry, bytes - audit_size(entry[2][8])
    end
    if not last then return end
    local number = tonumber(string.match(last[1], '^%d+'))
    set_audit_point(ANCHORS, realm, number, last[2][10])
    redis.call('XTRIM', stream, 'MINID', int(number + 1) .. '-0')
    redis.call('HSET', BYTES, realm, int(math.max(bytes, 0)))
    if last ~= oldest[AT_ONCE] then return end
  end
end

for i = 4, #ARGV, 4 do
  local realm, number, digest, sealed = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3]
  if sealed ~= '' and lost(realm, number, digest) then declare(realm, number, digest, sealed) end
  drop(realm)
  local head, known = audit_point(AUDITS, realm)
  local anchor, before = audit_point(ANCHORS, realm)
  reply[#reply + 1] = {int(head), known, int(anchor), before, redis.call('XLEN', audit_stream(realm))}
end
return reply
