"""Storage servers for tests, each a script of its own: `support.servers` starts and ends them."""
