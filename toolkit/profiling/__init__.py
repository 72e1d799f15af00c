"""Where the time of an artifact goes: per operator, per layer, and what to do next (`mvtool.profile/1`)."""
