"""The gRPC service for signed release packages."""

from sfumato_server.intake.server import IntakeCredentials, IntakeServer

__all__ = ["IntakeCredentials", "IntakeServer"]
