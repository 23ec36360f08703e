"""From the log to every verifier: queues of subscribers, and waiting until they have applied something."""
