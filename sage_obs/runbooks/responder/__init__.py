"""The responder: Alertmanager's webhook in, verified rollbacks out."""
