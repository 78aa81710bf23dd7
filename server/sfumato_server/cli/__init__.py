"""`sfumato`: the coordinator's command line."""
