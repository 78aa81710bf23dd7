"""The stewards' page: what waits for a yes or no, on this machine alone."""
