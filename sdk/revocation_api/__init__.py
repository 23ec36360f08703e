"""The wire contract: Python generated from proto/ by `make proto`."""
