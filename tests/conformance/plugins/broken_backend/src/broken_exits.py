"""Ends the process when it is imported, as a script mistaken for a plugin would."""

import sys

sys.exit("a plugin must not do this")
