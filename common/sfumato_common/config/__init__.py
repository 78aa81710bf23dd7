"""Strict, typed configuration: the study plan, the site policy and the YAML loader."""
