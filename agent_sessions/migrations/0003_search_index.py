import agent_sessions.postgresql.search_index
from django.db import migrations


class Migration(migrations.Migration):
    # The index of a filled table is built without blocking those who write to it.
    atomic = False

    dependencies = [
        ("agent_sessions", "0002_append_and_statistics"),
    ]

    operations = [
        migrations.RunPython(
            agent_sessions.postgresql.search_index.replace,
            migrations.RunPython.noop,
            elidable=False,
        ),
    ]
