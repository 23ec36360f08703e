"""The revocation service. Users import `revocation_sdk`; this package is what `revocation serve` runs."""

__version__ = "0.2.0"
