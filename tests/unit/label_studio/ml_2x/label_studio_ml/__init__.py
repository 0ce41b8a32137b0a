"""Stands for label-studio-ml 2.0.1.dev0, which is on GitHub only and depends on an SDK out of git.

Signatures, call forms and the order of calls are those of HumanSignal/label-studio-ml-backend: ``model.py`` at
010cc2ab1da0ca1e30874e97d13a7c4cda42de92, ``api.py`` at 5c12977fc02cee9b47b5f7a7a50c496f5ca61c73, ``cache.py`` at
13fa1177403bf6d6e7305253d4bb42b09491a61c.  What the adapter does not touch is left out.
"""
