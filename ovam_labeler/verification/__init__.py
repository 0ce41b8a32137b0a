"""``ovam-labeler verify``: checks and times a base model where its weights are, and writes one file to post back."""
