"""Sessions: what may happen to one (`machine`, pure), what a refresh token is (`refresh`, pure), and the use cases.

machine   (session, command, now) -> commit or refusal: rotation, grace, reuse, timeouts
refresh   the form of refresh tokens and session ids, and their MACs
handles   what lists call a session (pure)
keys      what is derived for sessions from the master secret
policy    settings of realms and clients
gate      one round trip to the store at a time, behind the barriers that a decision needs
desk      what all use cases share: finding, sealing, granting
dry_runs  whose dry run is counted next
lists, ends, impact, service    the use cases: look; end; count what would end; open, refresh, touch
"""
