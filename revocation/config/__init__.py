"""The configuration: its fields, the rules between them, and what it holds of addresses and stores."""
