"""The gRPC door for signed release packages."""

from sfumato_server.intake.service import IntakeCredentials, IntakeServer

__all__ = ["IntakeCredentials", "IntakeServer"]
