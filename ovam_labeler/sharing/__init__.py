"""Tokens on their way out of this store and into it, and tokens compared with each other."""
