"""Web pages of the registry (Flask + Jinja; htmx only enhances): what learned, what is waiting, what failed, what to do.

``app.register_pages`` puts them under ``/pages/``.  They read and change the store through its contract only.
"""
