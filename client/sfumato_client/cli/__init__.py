"""`sfumato-site`: the hospital's command line."""
