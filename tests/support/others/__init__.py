"""Other instances of the kinds of shared/data/field, made by program: what each is, and what it must give."""
