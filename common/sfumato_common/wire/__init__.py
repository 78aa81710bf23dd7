"""What travels between site and coordinator outside Flower: the intake's gRPC contract (intake.proto and its code)."""
