# Build: the wheel and its dependencies, into a virtual environment that the second stage copies.
FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/edgeproxy
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY edgeproxy edgeproxy
COPY rules rules
# The versions that the tests run with; change them in that file.
RUN /opt/edgeproxy/bin/pip install --no-cache-dir --disable-pip-version-check -c edgeproxy/templates/constraints.txt .

# Run: Python, the virtual environment, a user without rights, and one directory to write to.
FROM python:3.12-slim
RUN groupadd --system --gid 10001 edgeproxy \
 && useradd --system --uid 10001 --gid edgeproxy --no-create-home --shell /usr/sbin/nologin edgeproxy \
 && install --directory --owner=edgeproxy --group=edgeproxy /var/cache/edgeproxy
COPY --from=build /opt/edgeproxy /opt/edgeproxy

# The root file system may be read-only: the cache is a volume, and nothing else is written. There is a
# worker for each CPU that the container may use (--cpus, or EDGEPROXY_WORKERS). Of several the sockets are in /tmp,
# if that is given (--tmpfs /tmp), else in the cache.
# EDGEPROXY_ORIGIN has no default: give it with -e, or --origin after the image's name.
# Clients come in at 8080. The admin port is loopback's own; to publish it, set EDGEPROXY_ADMIN to
# 0.0.0.0:8081 and EDGEPROXY_ADMIN_TOKEN to a secret.
ENV PATH=/opt/edgeproxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    EDGEPROXY_LISTEN=0.0.0.0:8080 \
    EDGEPROXY_ADMIN=127.0.0.1:8081 \
    EDGEPROXY_CACHE_DIR=/var/cache/edgeproxy
VOLUME /var/cache/edgeproxy
WORKDIR /var/cache/edgeproxy
EXPOSE 8080 8081
USER 10001:10001

# urlopen raises for anything but 2xx, and the check fails with it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8081/healthz', timeout=2)"]

# SIGTERM drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["edgeproxy"]
CMD ["serve"]
