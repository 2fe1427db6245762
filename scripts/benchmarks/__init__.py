"""What benchmark.py measures, a file each."""
