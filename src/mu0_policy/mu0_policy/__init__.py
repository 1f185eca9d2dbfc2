"""Policies: predicted traces in, safe joint commands out."""
