"""What batch scoring adds to the ranking of a version: filters, limits, diversity, and figures about the lists.

A version ranks with the code that it carries. What is here works on the order that comes out, so it applies to versions
of every release.
"""
