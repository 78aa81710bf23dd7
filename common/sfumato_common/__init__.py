"""What coordinator and sites share; imports neither."""
