"""The pages by noun."""
