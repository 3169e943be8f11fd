"""The pair of models that a project would write in ten minutes: what the store is compared with."""

from django.conf import settings
from django.db import models


class NaiveSession(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    title = models.CharField(max_length=255)
    updated_at = models.DateTimeField(auto_now=True)
    message_count = models.IntegerField(default=0)
    context = models.JSONField(default=dict)

    def __str__(self) -> str:
        return self.title


class NaiveMessage(models.Model):
    session = models.ForeignKey(NaiveSession, on_delete=models.CASCADE, related_name="messages")
    role = models.CharField(max_length=16)
    content = models.TextField()
    metadata = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at"]

    def __str__(self) -> str:
        return self.content[:60]
