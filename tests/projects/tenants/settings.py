"""Each tenant has a schema of its own (django-tenants)."""

from tests.projects.base import *  # noqa: F403
from tests.projects.base import DATABASES, INSTALLED_APPS, MIDDLEWARE

DATABASES["default"]["ENGINE"] = "django_tenants.postgresql_backend"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
SHARED_APPS = ["django_tenants", "tests.projects.tenants.customers", "django.contrib.contenttypes"]
TENANT_APPS = list(INSTALLED_APPS)
INSTALLED_APPS = [*SHARED_APPS, *[app for app in TENANT_APPS if app not in SHARED_APPS]]
MIDDLEWARE = ["django_tenants.middleware.main.TenantMainMiddleware", *MIDDLEWARE]
TENANT_MODEL = "customers.Customer"
TENANT_DOMAIN_MODEL = "customers.Domain"
for _cache in CACHES.values():  # noqa: F405
    _cache["KEY_FUNCTION"] = "django_tenants.cache.make_key"
    _cache["REVERSE_KEY_FUNCTION"] = "django_tenants.cache.reverse_key"
TOUR_HOOKS = "tests.projects.tenants.hooks"
