"""A Django project that shows the two apps at work. Not part of the installed package."""

from example_project.celery import app as celery_app

__all__ = ["celery_app"]
