"""The gRPC door for signed release packages."""
