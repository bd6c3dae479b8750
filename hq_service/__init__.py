"""The headquarters authority over gift card and credit memo balances and locks."""

__version__ = "0.1.0"
