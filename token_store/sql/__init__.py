"""The SQL store's methods, one module per noun."""
