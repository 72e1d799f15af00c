"""int8: calibration on rolled state, the policy, and one writer per family of targets."""
