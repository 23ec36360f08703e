"""Following the log of a partition: what is held of it, proof that it is current, and healing what a store lost."""
