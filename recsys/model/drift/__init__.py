"""Concept drift: how it is found, and how learning answers to it."""
