# The example project. One image serves web, worker, beat and migrations.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app

COPY setup.cfg pyproject.toml MANIFEST.in README.md CHANGELOG.md LICENSE manage.py ./
COPY agent_sessions agent_sessions
COPY cache_layer cache_layer
COPY example_project example_project
RUN pip install --no-cache-dir ".[demo]" \
    && useradd --create-home app \
    && install --directory --owner app /data

USER app
ENV DATA_DIR=/data
EXPOSE 8000
# Open event streams would delay the end of the process; their clients connect again.
CMD ["uvicorn", "example_project.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "5"]
