"""Admitted packages only, put together."""

from sfumato_server.pool.duplicates import Duplicate, Duplicates
from sfumato_server.pool.pool import Left, Pool, PoolItem, PoolShard, Source
from sfumato_server.pool.pooling import pool_packages

__all__ = ["Duplicate", "Duplicates", "Left", "Pool", "PoolItem", "PoolShard", "Source", "pool_packages"]
