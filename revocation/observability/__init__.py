"""What the service says about itself: log lines, metrics, traces, and a promise that it measures itself."""
