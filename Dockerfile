FROM python:3.13-slim AS packages

COPY requirements/runtime.lock /tmp/runtime.lock
RUN python -m venv /opt/hq-service \
    && /opt/hq-service/bin/pip install --no-cache-dir --disable-pip-version-check --no-input \
        --require-hashes --no-deps --requirement /tmp/runtime.lock \
    # Nothing installs packages in the image that serves.
    && /opt/hq-service/bin/pip uninstall --quiet --yes pip


FROM python:3.13-slim

RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin hq
COPY --from=packages /opt/hq-service /opt/hq-service

WORKDIR /app
COPY LICENSE pyproject.toml ./
COPY migrations migrations
COPY hq_service hq_service
RUN /opt/hq-service/bin/python -m compileall -q hq_service

# Production: the service refuses to start without DATABASE_URL and its secrets, and makes none up.
ENV HQ_ENV=production \
    HQ_BIND=0.0.0.0:8080 \
    PATH=/opt/hq-service/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 10001
EXPOSE 8080
CMD ["python", "-m", "hq_service", "serve"]
