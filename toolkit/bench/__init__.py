"""Benchmark records, what is derived from them, and the run that makes them."""
