"""CVAT: proposals through its auto-annotation functions, corrections out of its tasks' annotations."""
