"""OVAM Labeler: proposes segmentation masks for any class word and learns a class from one corrected mask."""

__version__ = "0.1.0"
