"""Benchmarks by a native runner, on this machine and on Android phones over adb."""
