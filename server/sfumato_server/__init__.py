"""The coordinator: enrolment, rounds, intake, pooling and publishing."""
