"""The only maker of outbound messages and uploads."""
