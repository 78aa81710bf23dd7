"""From approved candidates to a signed package."""
