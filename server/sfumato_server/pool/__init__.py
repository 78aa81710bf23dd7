"""Admitted packages only, put together."""

from sfumato_server.pool.pooling import Duplicate, Pool, PoolItem, Provenance, pool_packages

__all__ = ["Duplicate", "Pool", "PoolItem", "Provenance", "pool_packages"]
