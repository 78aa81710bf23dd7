"""The DP-SGD step and its engines."""
