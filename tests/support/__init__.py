"""Builders that tests share: plans, homes, federations, hostile hospitals, captured traffic."""
