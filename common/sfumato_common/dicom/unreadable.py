"""The one exception of readers of images."""

from __future__ import annotations


class UnreadableError(Exception):
    """One reference cannot be used; the text is the reason, for a report of what was left out."""
