"""What operators and probes ask over plain HTTP."""
