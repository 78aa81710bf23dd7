"""Flower's entries into the site: the app, the worker, the node, the upload."""
