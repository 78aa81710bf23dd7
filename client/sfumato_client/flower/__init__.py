"""Flower's entries into the site: the app, the task command, the node, the upload."""
