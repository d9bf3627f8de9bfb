"""Faults on the wire: an HTTP proxy in front of a server, set from schedules or by rules.

`control.FaultProxy` starts it as a child process on the loopback address.
"""
