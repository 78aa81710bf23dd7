"""Tables by CADP (arXiv 2207.14625): a CSV and its schema to a table whose every row has a formal guarantee."""
