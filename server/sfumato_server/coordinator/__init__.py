"""The coordinator: its home, its process, and a study inside Flower's ServerApp."""
