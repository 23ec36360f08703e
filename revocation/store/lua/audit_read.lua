-- Reads the audit of a realm.
--
-- ARGV  log, realm, number after which to read, most entries, or 0 for all but the entries
-- Reply {'ok', head number, digest, anchor number, digest, digest of the entry of that number ('': not there),
--       then entries: {number, t, s, x, b, d}} or {why}

local m = meta()
local closed = gate(m, ARGV[1])
if closed then return {closed} end
local realm, after, count = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local head, digest = audit_point(AUDITS, realm)
local anchor, before = audit_point(ANCHORS, realm)
local there = after == anchor and before or after > anchor and audit_digest_at(realm, after) or ''
local reply = {'ok', int(head), digest, int(anchor), before, there}
if count > 0 then
  local found = redis.call('XRANGE', audit_stream(realm), int(after + 1) .. '-0', '+', 'COUNT', count)
  for _, entry in ipairs(found) do
    local fields = entry[2]
    reply[#reply + 1] = {string.match(entry[1], '^%d+'), fields[2], fields[4], fields[6], fields[8], fields[10]}
  end
end
return reply
