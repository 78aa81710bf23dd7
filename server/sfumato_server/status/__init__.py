"""What a coordinator watches while a study runs."""
