"""One training in several processes, on one host or more."""
