"""Commits whose requests go wrong on the wire, below the retries of every client.

`services` knows how options name an endpoint and how clients are made impatient, `scenes` what is written
and how it is read, `sweep` tries each fault at each request and judges.
"""
