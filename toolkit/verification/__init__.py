"""Verification: every artifact of a build is executed and held against the trained model.

`mvtool.verification.verify.verify(path)` returns a `mvtool.verification.report.Verification`. Each artifact is
examined in a process of its own (`worker`, `examine`), in lockstep with the PyTorch stream, which runs once
in the parent (`lockstep`).
"""
