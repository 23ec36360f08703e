"""The master secrets, and the keys that are derived from them."""
