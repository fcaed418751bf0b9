"""Streams, leases, lanes and the fenced commit on one Redis-compatible server."""
