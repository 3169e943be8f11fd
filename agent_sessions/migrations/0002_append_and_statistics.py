import agent_sessions.migration_operations
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    # Indexes of a filled table are built without blocking those who write.
    atomic = False

    dependencies = [
        ('agent_sessions', '0001_initial'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        agent_sessions.migration_operations.CreateAppendFunction(),
        agent_sessions.migration_operations.AddIndexWithoutBlocking(
            model_name='session',
            index=models.Index(fields=['user', 'status', '-last_activity_at', '-id', 'expires_at', 'message_count'], name='agent_session_numbers'),
        ),
        agent_sessions.migration_operations.RemoveIndexWithoutBlocking(
            model_name='session',
            name='agent_session_status',
        ),
    ]
