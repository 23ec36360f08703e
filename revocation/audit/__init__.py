"""Who did what, in a chain beside the change: sealing it, keeping it, reading it for auditors."""
