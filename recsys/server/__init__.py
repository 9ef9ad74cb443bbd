"""Answers requests for recommendations over HTTP, with the champion of the registry."""
