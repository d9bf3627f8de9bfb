"""The local backend on Windows calls, run by the Windows Python of `wine.install`."""
