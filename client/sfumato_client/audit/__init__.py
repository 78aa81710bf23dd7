"""The gate: attacks and the verdict table; knows nothing of release."""
