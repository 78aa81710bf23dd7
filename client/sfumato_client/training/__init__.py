"""Stage trainers, one a file; each turns a cohort into one differentially private message."""
