"""The admin of users with a UUID as their key."""

from django.contrib import admin

from tests.users.models import UUIDUser

admin.site.register(UUIDUser)
