from django.apps import AppConfig


class UsersConfig(AppConfig):
    name = "tests.users"
    label = "users"
