"""A study over a relay that keeps every byte, and what is looked for in it."""
