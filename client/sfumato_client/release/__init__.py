"""From approved candidates to a signed package."""

from sfumato_client.release.seal import seal

__all__ = ["seal"]
