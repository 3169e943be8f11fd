from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from django.urls import reverse

from example_project import settings as example_settings
from tests.processes import ROOT


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    document = yaml.safe_load((ROOT / "compose.yaml").read_text())
    found: dict[str, Any] = document["services"]
    return found


def test_every_part_is_there(services: dict[str, Any]) -> None:
    assert services.keys() >= {"postgres", "redis", "rabbitmq", "migrate", "web", "worker", "beat"}


def test_what_is_depended_on_exists_and_can_be_waited_for(services: dict[str, Any]) -> None:
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert services[name]["healthcheck"]["test"]
            else:
                assert how["condition"] == "service_completed_successfully"
                assert services[name]["restart"] == "no"


def test_addresses_name_services(services: dict[str, Any]) -> None:
    for name in ("migrate", "web", "worker", "beat"):
        environment = services[name]["environment"]
        for variable in ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL"):
            host = re.search(r"(?:@|//)(\w+):\d+/", environment[variable])
            assert host is not None
            assert host[1] in services


def test_every_variable_is_one_that_the_settings_read(services: dict[str, Any]) -> None:
    source = (ROOT / "example_project/settings.py").read_text()
    source += (ROOT / "cache_layer/conf.py").read_text()
    for name in ("migrate", "web", "worker", "beat"):
        for variable in services[name]["environment"]:
            assert f'"{variable}"' in source, variable


def test_every_variable_of_the_example_file_is_one_that_the_settings_read() -> None:
    source = (ROOT / "example_project/settings.py").read_text()
    source += (ROOT / "cache_layer/conf.py").read_text()
    example = (ROOT / ".env.example").read_text()
    variables = re.findall(r"^#?([A-Z_]+)=", example, flags=re.MULTILINE)
    assert len(variables) > 15
    for variable in variables:
        assert f'"{variable}"' in source, variable
    read = re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', source) + re.findall(r'number\("(\w+)"', source)
    assert set(read) - {"DJANGO_READ_DOT_ENV", "BROKER_DIR"} <= set(variables)


def test_the_image_has_the_files_it_copies() -> None:
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY"):
            for name in line.split()[1:-1]:
                assert (ROOT / name).exists(), name


def test_the_public_addresses() -> None:
    assert example_settings.ROOT_URLCONF == "example_project.urls"
    assert [reverse(name) for name in ("home", "schema", "docs", "admin:index")] == [
        "/",
        "/api/schema/",
        "/api/docs/",
        "/admin/",
    ]
