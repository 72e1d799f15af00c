"""Benchmarks on Android phones; empty until the harness lands."""
