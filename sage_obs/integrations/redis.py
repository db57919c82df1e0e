"""redis-py: commands and pipelines, sync, async and of clusters, with the names of commands and without their arguments."""

from __future__ import annotations

from typing import Final

from sage_obs.integrations.instrumentor import Driven, InstrumentorIntegration

INTEGRATION: Final = InstrumentorIntegration(
    "redis",
    ("4.5", "9"),
    Driven(
        package="opentelemetry.instrumentation.redis",
        kind="RedisInstrumentor",
        owners=(
            "redis.client:Redis",
            "redis.client:Pipeline",
            "redis.cluster:RedisCluster",
            "redis.cluster:ClusterPipeline",
            "redis.asyncio.client:Redis",
            "redis.asyncio.client:Pipeline",
            "redis.asyncio.cluster:RedisCluster",
            "redis.asyncio.cluster:ClusterPipeline",
        ),
    ),
)
