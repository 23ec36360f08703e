-- The audit, for the scripts that write or read it; redis.py puts it between partition.lua and them.
--
-- Keys
--   audit:<realm>   stream, ids "<number>-0": time t, number of the realm's log record s, what only the script knew x,
--                   what the service sealed b, digest d (see audit.proto for the chain)
--   audits          hash: realm -> "<number> <digest>", the head
--   audit_anchors   hash: realm -> "<number> <digest>", of the last entry that was dropped
--   audit_bytes     hash: realm -> about how many bytes its entries take

local AUDITS, ANCHORS, BYTES = prefix .. 'audits', prefix .. 'audit_anchors', prefix .. 'audit_bytes'

local function audit_size(sealed) return #sealed + 100 end

local function audit_stream(realm) return prefix .. 'audit:' .. realm end

local function audit_point(hash, realm)
  local known = redis.call('HGET', hash, realm)
  if not known then return 0, ZERO end
  local number, digest = string.match(known, '^(%d+) (%x+)$')
  return tonumber(number), digest
end

local function set_audit_point(hash, realm, number, digest) redis.call('HSET', hash, realm, int(number) .. ' ' .. digest) end

local function audit_digest_at(realm, number)
  local found = redis.call('XRANGE', audit_stream(realm), int(number) .. '-0', int(number) .. '-0')[1]
  return found and found[2][10]
end

-- The next entry. `seq` and `extra` are text.
local function audit(realm, seq, extra, sealed)
  local number, digest = audit_point(AUDITS, realm)
  number = number + 1
  local function add()
    local head = int(number) .. ' ' .. int(now) .. ' ' .. seq .. ' ' .. extra .. ' '
    digest = redis.sha1hex(digest .. head .. sealed)
    return redis.pcall('XADD', audit_stream(realm), int(number) .. '-0', 't', int(now), 's', seq, 'x', extra,
      'b', sealed, 'd', digest)
  end
  if type(add()) == 'table' then
    -- The head was lost, or set back, and the stream was not: a commit must not fail by it, and whoever checks the
    -- chain finds out.
    local last = redis.call('XREVRANGE', audit_stream(realm), '+', '-', 'COUNT', 1)[1]
    number, digest = tonumber(string.match(last[1], '^%d+')) + 1, last[2][10]
    add()
  end
  set_audit_point(AUDITS, realm, number, digest)
  redis.call('HINCRBY', BYTES, realm, audit_size(sealed))
  return int(number), digest
end
