from __future__ import annotations

from django.contrib import admin
from django.contrib.admin.apps import AdminConfig


class BackstageConfig(AdminConfig):
    default_site = "tests.projects.custom_admin.site.Backstage"


class Backstage(admin.AdminSite):
    site_header = "Backstage"
    index_title = "What there is"
    enable_nav_sidebar = False
