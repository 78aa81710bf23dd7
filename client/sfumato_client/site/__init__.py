"""The site: its home, what it accepts, and how it answers a request."""
