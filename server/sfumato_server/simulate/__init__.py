"""Studies of many sites on one machine, to choose a plan by before a hospital is asked."""
