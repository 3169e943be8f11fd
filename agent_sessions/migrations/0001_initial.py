import agent_sessions.fields
import agent_sessions.ids
import agent_sessions.migration_operations
import agent_sessions.models
import agent_sessions.postgresql.append_function
import agent_sessions.postgresql.pop_function
import agent_sessions.postgresql.search_index
import agent_sessions.validators
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Session',
            fields=[
                ('id', models.UUIDField(default=agent_sessions.ids.uuid7, editable=False, primary_key=True, serialize=False, verbose_name='id')),
                ('tenant', models.CharField(blank=True, default='', max_length=255, validators=[agent_sessions.validators.validate_text], verbose_name='tenant')),
                ('agent_id', models.CharField(max_length=255, validators=[agent_sessions.validators.validate_text], verbose_name='agent')),
                ('title', agent_sessions.fields.TitleField(blank=True, default='', max_length=255, validators=[agent_sessions.validators.validate_text], verbose_name='title')),
                ('status', models.CharField(choices=[('active', 'active'), ('paused', 'paused'), ('completed', 'completed'), ('failed', 'failed'), ('archived', 'archived')], default='active', max_length=16, verbose_name='status')),
                ('sealed_title', agent_sessions.fields.SealedTitleField(editable=False, null=True)),
                ('context', agent_sessions.fields.SessionObjectField(blank=True, default=dict, encoder=agent_sessions.fields.ExactEncoder, verbose_name='context')),
                ('metadata', agent_sessions.fields.SessionObjectField(blank=True, default=dict, encoder=agent_sessions.fields.ExactEncoder, verbose_name='metadata')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='created')),
                ('updated_at', models.DateTimeField(auto_now=True, verbose_name='changed')),
                ('last_message_at', models.DateTimeField(editable=False, null=True, verbose_name='last message')),
                ('last_activity_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='last activity')),
                ('expires_at', models.DateTimeField(blank=True, default=agent_sessions.models.default_expiry, null=True, verbose_name='expires')),
                ('message_count', models.PositiveIntegerField(default=0, editable=False, verbose_name='messages')),
                ('last_sequence', models.PositiveIntegerField(default=0, editable=False, verbose_name='last sequence')),
                ('last_change', models.PositiveIntegerField(db_default=0, default=0, editable=False)),
                ('idempotency_key', models.CharField(blank=True, editable=False, max_length=255, null=True, verbose_name='idempotency key')),
                ('idempotency_digest', models.CharField(default='', editable=False, max_length=64)),
                ('user', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='agent_sessions', to=settings.AUTH_USER_MODEL, verbose_name='user')),
            ],
            options={
                'verbose_name': 'session',
                'verbose_name_plural': 'sessions',
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Message',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('sequence', models.PositiveIntegerField(verbose_name='sequence')),
                ('role', models.CharField(max_length=64, validators=[agent_sessions.validators.validate_role], verbose_name='role')),
                ('content', agent_sessions.fields.ContentField(blank=True, default='', verbose_name='content')),
                ('metadata', agent_sessions.fields.MetadataField(blank=True, default=dict, verbose_name='metadata')),
                ('payload', agent_sessions.fields.PayloadField(editable=False, null=True)),
                ('idempotency_key', models.CharField(blank=True, editable=False, max_length=255, null=True, verbose_name='idempotency key')),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name='created')),
                ('revision', models.PositiveIntegerField(blank=True, editable=False, null=True)),
                ('user', models.ForeignKey(db_constraint=False, db_index=False, editable=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=settings.AUTH_USER_MODEL, verbose_name='user')),
                ('session', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='messages', to='agent_sessions.session', verbose_name='session')),
            ],
            options={
                'verbose_name': 'message',
                'verbose_name_plural': 'messages',
                'ordering': ['session_id', 'sequence'],
            },
        ),
        migrations.CreateModel(
            name='DeletedMessage',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('sequence', models.PositiveIntegerField()),
                ('revision', models.PositiveIntegerField()),
                ('session', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='deleted_messages', to='agent_sessions.session')),
            ],
            options={
                'verbose_name': 'deleted message',
                'verbose_name_plural': 'deleted messages',
                'default_permissions': (),
            },
        ),
        migrations.AddIndex(
            model_name='session',
            index=models.Index(fields=['user', 'tenant', '-last_activity_at', '-id'], name='agent_session_activity'),
        ),
        migrations.AddIndex(
            model_name='session',
            index=models.Index(fields=['user', 'tenant', 'status', '-last_activity_at', '-id', 'expires_at', 'message_count'], name='agent_session_numbers'),
        ),
        migrations.AddIndex(
            model_name='session',
            index=models.Index(fields=['user', 'tenant', '-id'], name='agent_session_creation'),
        ),
        migrations.AddIndex(
            model_name='session',
            index=models.Index(condition=models.Q(('tenant', ''), _negated=True), fields=['tenant', '-id'], name='agent_session_tenant'),
        ),
        migrations.AddIndex(
            model_name='session',
            index=models.Index(condition=models.Q(('status__in', ('active', 'paused'))), fields=['expires_at'], name='agent_session_expiry'),
        ),
        migrations.AddIndex(
            model_name='session',
            index=models.Index(condition=models.Q(('status__in', ('completed', 'failed'))), fields=['updated_at'], name='agent_session_retention'),
        ),
        migrations.AddConstraint(
            model_name='session',
            constraint=models.UniqueConstraint(condition=models.Q(('idempotency_key__isnull', False)), fields=('user', 'tenant', 'idempotency_key'), name='agent_session_idempotency'),
        ),
        migrations.AddConstraint(
            model_name='message',
            constraint=models.UniqueConstraint(fields=('session', 'sequence'), name='agent_message_sequence'),
        ),
        migrations.AddConstraint(
            model_name='message',
            constraint=models.UniqueConstraint(condition=models.Q(('idempotency_key__isnull', False)), fields=('session', 'idempotency_key'), name='agent_message_idempotency'),
        ),
        migrations.AddIndex(
            model_name='message',
            index=models.Index(condition=models.Q(('revision__isnull', False)), fields=['session', 'revision'], name='agent_message_revision'),
        ),
        migrations.AddConstraint(
            model_name='deletedmessage',
            constraint=models.UniqueConstraint(fields=('session', 'revision'), name='agent_deleted_revision'),
        ),
        agent_sessions.migration_operations.RunOnPostgreSQL(
            [agent_sessions.postgresql.append_function.CREATE],
            [agent_sessions.postgresql.append_function.DROP],
            hints={'model_name': 'message'},
        ),
        agent_sessions.migration_operations.RunOnPostgreSQL(
            [agent_sessions.postgresql.pop_function.CREATE],
            [agent_sessions.postgresql.pop_function.DROP],
            hints={'model_name': 'message'},
        ),
        migrations.RunPython(
            agent_sessions.postgresql.search_index.create_if_possible,
            agent_sessions.postgresql.search_index.drop,
            hints={'model_name': 'message'},
        ),
    ]
