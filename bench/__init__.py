"""Measures the service beside what people would use instead. `make bench` runs all of it."""
