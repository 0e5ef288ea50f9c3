"""Alerts: the log, and channels beside it, one file each.

A new channel is one more file here; ``_base.py`` says what it must do.
"""

from mlops_assets.resources.alerts._base import Alert, AlertKind, Channel, DeliveryOutcome
from mlops_assets.resources.alerts._delivering import CHANNELS, Alerts
from mlops_assets.resources.alerts.webhook import signature

__all__ = ["CHANNELS", "Alert", "AlertKind", "Alerts", "Channel", "DeliveryOutcome", "signature"]
