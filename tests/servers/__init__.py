"""Servers for tests: moto, a real Ceph RGW, and a proxy that fails on demand in front of either.

No tests in themselves; the folder `tests` is on the path (pyproject.toml), so any test says `from servers.moto import moto_server`.
"""
