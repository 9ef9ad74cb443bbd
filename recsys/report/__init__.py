"""A page about a stream: quality, versions, members, drift, freshness, quarantine, coverage and sample lists.

The page is one HTML file that asks for nothing outside itself. It shows what the tables and the registry hold, and
changes neither. `make.write_report` makes it.
"""
