"""Pure state machines that decide how a transaction is committed and recovered."""
