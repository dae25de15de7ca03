"""edgeproxy: a reverse caching proxy on aiohttp."""

__version__ = "0.1.0"
