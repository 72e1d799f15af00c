"""Reference evaluator for Core ML programs: reads a saved `.mlpackage` and computes what it says."""
