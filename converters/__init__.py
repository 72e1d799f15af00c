"""From a module to artifacts: capture, rewrites, and one emitter per target."""
