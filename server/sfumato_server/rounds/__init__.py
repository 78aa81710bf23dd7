"""The round loop and one aggregation strategy a file."""
